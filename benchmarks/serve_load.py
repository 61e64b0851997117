"""The whole service over loopback: 200 characters a request, from 1, 8 and 64 clients.

Measured in the same run: LitServe with the same RNN in PyTorch, the better of one and two workers; and a
FastAPI route that returns a fixed string, in as many processes as Charloom. None of them logs requests. The
processor time of a request is a better guide to other machines than the requests per second.

    python -m benchmarks.serve_load [--seconds 5] [--rounds 3] [--processes 1]
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
from benchmarks.cpu import spent, thread_seconds
from model.config import PRESETS

CLIENTS = (1, 8, 64)
OURS, BARE, LITSERVE = "Charloom", "bare FastAPI route", "LitServe"
WORKERS = (1, 2)  # of LitServe
READY_SECONDS = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def make_store(folder):
    """A store with a briefly trained `classic` network; its quality makes no difference to the speed."""
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


def command_of(store, port, processes=1):
    own = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--processes", str(processes)]
    return [*own, "--store", str(store), "--port", str(port)]


def commands(store, checkpoint, processes):
    """{server: (port, command)}"""
    python = [sys.executable, "-m"]
    port, bare_port = free_port(), free_port()
    servers = {OURS: (port, command_of(store, port, processes))}
    servers[BARE] = bare_port, [*python, "benchmarks.bare_route", str(bare_port), str(processes)]
    for workers in WORKERS:
        port = free_port()
        arguments = [str(port), str(checkpoint), str(workers)]
        servers[litserve(workers)] = port, [*python, "benchmarks.litserve_peer", *arguments]
    return servers


def litserve(workers):
    return f"{LITSERVE}, {workers} worker{'s' if workers > 1 else ''}"


@contextlib.contextmanager
def served(command, port, environment=None):
    # in its own process group, because the helpers of LitServe outlive their parent
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


def load(port, clients, seconds, kind, process):
    """The results of the clients, with the processor time of the server's processes for a request."""
    command = [sys.executable, "-m", "benchmarks.load_client", str(port), str(clients), str(seconds), kind]
    before = thread_seconds(process)
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    taken = spent(before, thread_seconds(process))
    return result | {f"cpu_{part}": 1e6 * of / result["requests"] for part, of in taken.items()}


@contextlib.contextmanager
def stopped(processes):
    """Lets the groups of these processes rest: LitServe's look for work all the time, a fifth of a core."""
    groups = list(processes)
    for group in groups:
        os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        for group in groups:
            os.killpg(group, signal.SIGCONT)


def median(results, name):
    values = [result[name] for result in results]
    return statistics.median(values)


def measure(servers, seconds, rounds):
    """{(server, clients, kind): [result of each round]}; the servers take turns.

    Args:
        servers: {name: (port, id of the first process)}
    """
    kinds = [(name, "plain") for name in servers] + [(OURS, "stream")]
    results = {}
    for _ in range(rounds):
        for clients in CLIENTS:
            for name, kind in kinds:
                port, process = servers[name]
                with stopped(other for server, (_, other) in servers.items() if server != name):
                    result = load(port, clients, seconds, kind, process)
                results.setdefault((name, clients, kind), []).append(result)
    return results


def better_peer(results, clients):
    """The name of the LitServe configuration with more requests per second."""
    return max(
        map(litserve, WORKERS),
        key=lambda name: median(results[name, clients, "plain"], "requests_per_second"),
    )


def show(results):
    rows = []
    for clients in CLIENTS:
        peer = better_peer(results, clients)
        for name, kind in ((OURS, "plain"), (OURS, "stream"), (peer, "plain"), (BARE, "plain")):
            rounds = results[name, clients, kind]
            rows.append(
                (
                    name + (", streaming" if kind == "stream" else ""),
                    clients,
                    f"{median(rounds, 'requests_per_second'):,.0f}",
                    f"{median(rounds, 'characters_per_second'):,.0f}",
                    f"{median(rounds, 'p50'):.1f}",
                    f"{median(rounds, 'p99'):.1f}",
                    f"{median(rounds, 'first_character_p50'):.1f}",
                    f"{median(rounds, 'cpu_all'):,.0f}",
                    f"{median(rounds, 'cpu_loop'):,.0f}" if name == OURS else "",
                    f"{median(rounds, 'cpu_engine'):,.0f}" if name == OURS else "",
                    f"{ratio(results, (name, clients, kind), (peer, clients, 'plain')):.1f}",
                    f"{ratio(results, (name, clients, kind), (BARE, clients, 'plain')):.0%}",
                    int(sum(result["failed"] for result in rounds)),
                )
            )
    head = ("server", "clients", "requests/s", "characters/s", "p50 ms", "p99 ms", "first character ms")
    cpu = ("CPU µs a request", "of the event loop", "of the engine")
    return report.table((*head, *cpu, "× LitServe", "of the bare route", "failed"), rows)


def ratio(results, one, other, name="requests_per_second"):
    return median(results[one], name) / median(results[other], name)


def show_floors(results):
    """The targets on two cores that servers and clients share."""
    one, many = CLIENTS[0], CLIENTS[-1]
    peers = {clients: (better_peer(results, clients), clients, "plain") for clients in (one, many)}
    ours = (OURS, many, "plain")
    rows = [
        ("64 clients, × LitServe", "at least 5", f"{ratio(results, ours, peers[many]):.1f}"),
        (
            "64 clients, of the bare route",
            "at least 30%",
            f"{ratio(results, ours, (BARE, many, 'plain')):.0%}",
        ),
        ("one client, × LitServe", "at least 13", f"{ratio(results, (OURS, one, 'plain'), peers[one]):.1f}"),
        (
            "64 streams, × LitServe",
            "at least 3",
            f"{ratio(results, (OURS, many, 'stream'), peers[many]):.1f}",
        ),
        (
            "p99 of 64 clients, of LitServe's",
            "at most 17%",
            f"{ratio(results, ours, peers[many], 'p99'):.0%}",
        ),
    ]
    return report.table(("", "aim", "measured"), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1, help="of Charloom, and of the bare route")
    arguments = parser.parse_args()
    quiet = {"CHARLOOM_LOG_LEVEL": "warning", "CHARLOOM_ACCESS_LOG": "false"}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        checkpoint = make_store(Path(folder))
        servers = {}
        for name, (port, command) in commands(folder, checkpoint, arguments.processes).items():
            process = stack.enter_context(served(command, port, quiet))
            servers[name] = port, process.pid
        results = measure(servers, arguments.seconds, arguments.rounds)
    environment = report.environment("numpy", "fastapi", "uvicorn", "torch", "litserve")
    name = "serve_load" if arguments.processes == 1 else f"serve_load_{arguments.processes}_processes"
    report.save(name, "\n\n".join(["# Serving", environment, show(results), show_floors(results)]))


if __name__ == "__main__":
    main()
