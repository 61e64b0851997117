"""Whether a server or a worker is healthy, as an exit code.

    python -m app.healthcheck server http://127.0.0.1:8000/healthz
    python -m app.healthcheck worker checkpoints

Orchestrators start it every few seconds, so it imports little.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from app.streams import visible

ANSWER_SECONDS = 3.0
SILENT_SECONDS = 60.0  # a worker that trains writes a heartbeat every second; after this it counts as silent
HEALTHY, UNHEALTHY, USAGE_ERROR = 0, 1, 2


def server_fault(url: str) -> str | None:
    """What is wrong with the server that should answer 200 at `url`; None if nothing is."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=ANSWER_SECONDS):
            return None
    except (OSError, ValueError) as error:
        return f"{url}: {error}"


def worker_fault(store: Path) -> str | None:
    """What is wrong with this machine's workers: one holds a run but writes no heartbeat. None if nothing is.

    Runs of other machines and of dead workers are ignored: other workers take those over.
    """
    for lease in sorted((store / ".leases").glob("*.lease")):
        try:
            status = json.loads((store / lease.stem / "status.json").read_bytes())
            silence = time.time() - status["heartbeat"]  # the same machine's clock wrote it
            silent = status["state"] == "training" and silence > SILENT_SECONDS
            if silent and status["host"] == socket.gethostname() and _is_alive(status["process"]):
                return f"run {lease.stem} is in training, but its last heartbeat was {silence:.0f} s ago"
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            continue  # damaged records are reported where runs are read; they do not mean a dead worker
    return None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["server", url]:
            fault = server_fault(url)
        case ["worker", store]:
            fault = worker_fault(Path(store))
        case _:
            print(
                f"usage: python -m app.healthcheck server URL | worker STORE. Given: {arguments}",
                file=sys.stderr,
            )
            return USAGE_ERROR
    if fault:
        print(visible(fault), file=sys.stderr)
    return UNHEALTHY if fault else HEALTHY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
