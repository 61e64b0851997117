"""The whole service over loopback: 200 characters a request, from 1, 8 and 64 clients.

In the same run: LitServe with the same RNN in PyTorch, and a FastAPI route that returns a fixed string. None
of them writes a log line a request.

    python -m benchmarks.serve_load [--seconds 5] [--rounds 3]
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from app.store.run_store import RunStore
from app.training.trainer import train_run
from benchmarks import report
from model.config import PRESETS

CLIENTS = (1, 8, 64)
READY_SECONDS = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def make_store(folder):
    """A store with a briefly trained `classic` network; how well it writes makes no difference to speed."""
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "and",
        "WHO",
        "said",
        "That",
        "it",
        "was;",
        "Quite",
        "so?",
    ]
    rng = np.random.default_rng(0)
    text = " ".join(rng.choice(words, 20_000)) + "\n"
    config = PRESETS["classic"].replace(steps=2000, sample_every=0, best_sample_length=0)
    run = RunStore(folder).create("classic", config, text, "words.txt")
    train_run(run, lambda: False)
    return run.checkpoints()[2000]


def command_of(store, port):
    own = [sys.executable, "-m", "app.cli", "serve", "--no-worker"]
    return [*own, "--store", str(store), "--port", str(port)]


@contextlib.contextmanager
def served(command, port, environment=None):
    # in a group of its own: LitServe's helpers outlive their parent
    process = subprocess.Popen(
        command, env=os.environ | (environment or {}), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until_ready(port, process)
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_ready(port, process):
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            body = {"prompt": "\n", "length": 5}
            if httpx.post(f"http://127.0.0.1:{port}/generate", json=body, timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"no answer from {process.args}")


def load(port, clients, seconds, kind):
    command = [sys.executable, "-m", "benchmarks.load_client", str(port), str(clients), str(seconds), kind]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def median(results, name):
    values = [result[name] for result in results]
    return statistics.median(values)


def measure(ports, seconds, rounds):
    """{(server, clients, kind): [result of each round]}; the servers take turns."""
    kinds = [(name, "plain") for name in ports] + [("Charloom", "stream")]
    results = {}
    for _ in range(rounds):
        for clients in CLIENTS:
            for name, kind in kinds:
                result = load(ports[name], clients, seconds, kind)
                results.setdefault((name, clients, kind), []).append(result)
    return results


def show(results):
    rows = []
    for (name, clients, kind), rounds in results.items():
        requests, peer = median(rounds, "requests_per_second"), results[("LitServe", clients, "plain")]
        bare = results[("bare FastAPI route", clients, "plain")]
        rows.append(
            (
                name + (", streaming" if kind == "stream" else ""),
                clients,
                f"{requests:,.0f}",
                f"{median(rounds, 'characters_per_second'):,.0f}",
                f"{median(rounds, 'p50'):.1f}",
                f"{median(rounds, 'p99'):.1f}",
                f"{median(rounds, 'first_character_p50'):.1f}",
                f"{requests / median(peer, 'requests_per_second'):.1f}",
                f"{requests / median(bare, 'requests_per_second'):.0%}",
                int(sum(result["failed"] for result in rounds)),
            )
        )
    head = ("server", "clients", "requests/s", "characters/s", "p50 ms", "p99 ms", "first character ms")
    return report.table((*head, "× LitServe", "of the bare route", "failed"), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ports = {name: free_port() for name in ("Charloom", "LitServe", "bare FastAPI route")}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        checkpoint = make_store(Path(folder))
        own = command_of(folder, ports["Charloom"])
        quiet = {"CHARLOOM_LOG_LEVEL": "warning", "CHARLOOM_ACCESS_LOG": "false"}
        stack.enter_context(served(own, ports["Charloom"], quiet))
        python = [sys.executable, "-m"]
        peer = [*python, "benchmarks.litserve_peer", str(ports["LitServe"]), str(checkpoint)]
        stack.enter_context(served(peer, ports["LitServe"]))
        bare = [*python, "benchmarks.bare_route", str(ports["bare FastAPI route"])]
        stack.enter_context(served(bare, ports["bare FastAPI route"]))
        results = measure(ports, arguments.seconds, arguments.rounds)
    environment = report.environment("numpy", "fastapi", "uvicorn", "torch", "litserve")
    report.save("serve_load", "\n\n".join(["# Serving", environment, show(results)]))


if __name__ == "__main__":
    main()
