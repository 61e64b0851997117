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
from typing import Any

from app.streams import visible

ANSWER_SECONDS = 3.0
LARGEST_RECORD = 1 << 20  # bytes
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
            status = _read(store / lease.stem / "status.json")
            silence = time.time() - status["heartbeat"]  # the same machine's clock wrote it
            silent = status["state"] == "training" and silence > SILENT_SECONDS
            if silent and status["host"] == socket.gethostname() and is_running(status["process"]):
                return f"run {lease.stem} is in training, but its last heartbeat was {silence:.0f} s ago"
        except Exception:  # noqa: S112 - damaged records are reported where runs are read
            continue
    return None


def _read(path: Path) -> Any:
    """The JSON of a file; of a pipe in its place, which would not end, nothing."""
    flags = os.O_NONBLOCK | os.O_NOFOLLOW
    with open(path, "rb", opener=lambda name, usual: os.open(name, usual | flags)) as file:
        return json.loads(file.read(LARGEST_RECORD))


def is_running(pid: int) -> bool:
    """Whether a process with this PID exists on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
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
