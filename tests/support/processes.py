"""A server of several processes: which there are, and a connection to a chosen one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.api.test_metrics import scrape
from tests.support.runs import LONGEST_WAIT, wait_until


def children(pid: int, program: bytes = b"multiprocessing.spawn") -> set[int]:
    """The processes that `pid` has started by multiprocessing, and that run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z" and program in (path / "cmdline").read_bytes():
                found.add(int(path.name))
    return found


def wait_for_processes(client: httpx.Client, count: int = 2, loads: int = 2) -> list[int]:
    """The server processes, once each of them answers: `loads` is how many have read a checkpoint so far."""

    def all_serve() -> bool:
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.Client(base_url=client.base_url, headers=client.headers) as other,
        ):
            return scrape(other)["checkpoint_reload_total", "loaded"] >= loads
        return False

    wait_until(lambda: len(children(client.process.pid)) == count and all_serve(), "all processes serve")
    return sorted(children(client.process.pid))


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """The processes stand still in the block; short, or their supervisor replaces them."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def each(client: httpx.Client) -> Iterator[list[httpx.Client]]:
    """Clients with a connection to the first, second, … of the server processes, which they keep."""
    pids = wait_for_processes(client)
    with contextlib.ExitStack() as stack:
        clients = []
        for pid in pids:
            # one connection, used again by each request
            limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
            other = httpx.Client(
                base_url=client.base_url, headers=client.headers, timeout=LONGEST_WAIT, limits=limits
            )
            clients.append(stack.enter_context(other))
            with stopped([other for other in pids if other != pid]):
                assert other.get("/healthz").status_code == 200
            other.pid = pid  # type: ignore[attr-defined]
        yield clients
