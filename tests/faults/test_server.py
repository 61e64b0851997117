"""A server killed with SIGKILL under load and restarted: no client takes a truncated text for a whole one."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.run_store import RunStore
from model.checkpoint import load
from tests.support.requests import alone, any_request, ask
from tests.support.runs import LONGEST_WAIT, wait_until

CLIENTS, EACH = 16, 40


@contextlib.contextmanager
def restartable(root: Path) -> Iterator[Any]:
    """A port, and a function that starts a server there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--no-worker", "--port", str(port)]
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = os.environ | {"CHARLOOM_ACCESS_LOG": "false"}
        processes.append(
            subprocess.Popen(
                [*command, "--store", str(root)], cwd=root.parent, env=environment, stderr=subprocess.DEVNULL
            )
        )
        wait_until(lambda: healthy(port), "the server answers")
        return processes[-1]

    try:
        yield port, start
    finally:
        for process in processes:
            process.kill()
            process.wait(LONGEST_WAIT)


def healthy(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=LONGEST_WAIT).status_code == 200
    return False


def persistent(port: int, requests: list[dict[str, Any]], texts: list[str]) -> int:
    """Collect the texts of a client that retries when its connection breaks; return how often it broke."""
    broken = 0
    end = time.monotonic() + LONGEST_WAIT
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONGEST_WAIT) as client:
        for at, request in enumerate(requests):
            while True:
                try:
                    texts.append(ask(client, request, streamed=at % 2 == 0))
                    break
                except httpx.TransportError as error:
                    broken += not isinstance(error, httpx.ConnectError)
                    assert time.monotonic() < end, "the server did not restart"
                    time.sleep(0.01)
    return broken


@pytest.mark.slow
def test_server_killed_under_load_loses_only_requests_in_flight(trained: RunStore):
    rng = random.Random(9)
    plans = [[any_request(rng) for _ in range(EACH)] for _ in range(CLIENTS)]
    paths = {
        f"{n}@{s}": trained.get(n).checkpoint_path(s) for n, s in (("gru", 40), ("gru", 60), ("classic", 60))
    }
    checkpoints = {name: load(path) for name, path in paths.items()}
    expected = [[alone(request, checkpoints) for request in plan] for plan in plans]
    with restartable(trained.root) as (port, start), ThreadPoolExecutor(CLIENTS) as pool:
        server = start()
        texts: list[list[str]] = [[] for _ in plans]
        jobs = [pool.submit(persistent, port, plan, own) for plan, own in zip(plans, texts, strict=True)]
        wait_until(lambda: all(texts), "every client has a text")
        server.send_signal(signal.SIGKILL)
        server.wait(LONGEST_WAIT)
        start()
        broken = [job.result() for job in jobs]
    assert sum(broken), "the kill broke no request, so there was no load"
    assert max(broken) <= 2  # the request in flight, and one on a kept connection
    assert texts == expected
