"""The processes of a server, and connections to a chosen one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.metrics import scrape
from tests.support.runs import LONGEST_WAIT, wait_until

MOST_CONNECTIONS = 500


def children(pid: int, program: bytes = b"multiprocessing.spawn") -> set[int]:
    """The running processes that `pid` has started through multiprocessing."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z" and program in (path / "cmdline").read_bytes():
                found.add(int(path.name))
    return found


def supervisor(pid: int) -> int:
    """The process that started `pid`."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for_processes(client: httpx.Client, count: int = 2, loads: int = 2) -> list[int]:
    """The server processes once they all answer; `loads` is how many have loaded a checkpoint by then."""

    def all_serve() -> bool:
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.Client(base_url=client.base_url, headers=client.headers) as other,
        ):
            return scrape(other)["checkpoint_reload_total", "loaded"] >= loads
        return False

    wait_until(lambda: len(children(client.process.pid)) == count and all_serve(), "all processes serve")
    return sorted(children(client.process.pid))


def accepted(pid: int, ports: Collection[int]) -> set[int]:
    """Those of the local `ports` whose connections the process has accepted."""
    sockets = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (port := int(fields[2].rpartition(":")[2], 16)) in ports:
            sockets[f"socket:[{fields[9]}]"] = port
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if (port := sockets.get(os.readlink(path))) is not None:
                found.add(port)
    return found


class Process:
    """One of the server processes behind the address of `client`; every request goes to that process."""

    def __init__(self, client: httpx.Client, pid: int) -> None:
        self.base_url, self.headers, self.pid = client.base_url, client.headers.copy(), pid

    @contextlib.contextmanager
    def connected(self) -> Iterator[httpx.Client]:
        """A client that is connected to the process and uses that connection for its next request."""
        with contextlib.ExitStack() as stack:
            for _ in range(MOST_CONNECTIONS):
                # the kernel chooses the process; connections to the other processes stay open meanwhile
                limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
                client = httpx.Client(
                    base_url=self.base_url, headers=self.headers, timeout=LONGEST_WAIT, limits=limits
                )
                stack.enter_context(client)
                with client.stream("GET", "/healthz") as answer:
                    port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
                    found = accepted(self.pid, [port])
                    answer.read()
                if found:
                    yield client
                    return
        raise AssertionError(f"process {self.pid} accepted none of {MOST_CONNECTIONS} connections")

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self.connected() as client:
            return client.request(method, path, **options)

    @contextlib.contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        with self.connected() as client, client.stream(method, path, **options) as answer:
            yield answer

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


def each(client: httpx.Client, loads: int = 2) -> list[Process]:
    """The server processes in order, once all of them answer."""
    return [Process(client, pid) for pid in wait_for_processes(client, loads=loads)]
