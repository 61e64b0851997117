"""Raw connections to a server, and the resources that its process uses."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import httpx

from tests.support.runs import LONGEST_WAIT


@contextlib.contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=LONGEST_WAIT) as connection:
        yield connection


def descriptors(client: httpx.Client) -> int:
    return len(os.listdir(f"/proc/{client.process.pid}/fd"))


def memory(client: httpx.Client) -> int:
    """Resident memory of the server, in bytes."""
    with open(f"/proc/{client.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def rest(connection: socket.socket) -> bytes:
    """Everything that the server sends until it closes the connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            data += piece
    return data
