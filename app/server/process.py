"""One server process: its listening sockets, descriptor limit and signals."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from app.signals import on_signals
from model.errors import CharloomError

CONNECTIONS = 4096
RESERVED = 256  # descriptors for listening sockets, files and helper processes
ACCEPTED = 32  # new connections per iteration of the event loop


class AddressError(CharloomError):
    """The server cannot listen on the address."""


class Server(uvicorn.Server):
    """uvicorn's server, but the application is notified as soon as a stop is requested.

    uvicorn notifies it only after all connections have closed, which a long text or a stream would delay.

    Args:
        drain: called in the event loop with False at the first signal, and with True at any later one, which
            means that work in progress must end immediately.

    `serving` is set once the server answers requests in the event loop `loop`.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[bool], object]) -> None:
        super().__init__(config)
        self._drain = drain
        self.serving = threading.Event()
        self.loop: asyncio.AbstractEventLoop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.serving.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Also handles hangups and, unlike uvicorn, does not raise the signals again at the end."""
        loop = asyncio.get_running_loop()
        with on_signals(lambda number: loop.call_soon_threadsafe(self.end)):
            yield

    def end(self) -> None:
        """Stop accepting and let requests in progress finish; a second call ends them immediately."""
        again, self.should_exit = self.should_exit, True
        self._drain(again)
        if again:
            for connection in list(self.server_state.connections):
                connection.transport.close()


def raise_descriptor_limit() -> None:
    """Raise the soft limit on descriptors to what the server can use, within the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + RESERVED
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def most_connections() -> int:
    """Maximum number of open connections that leaves descriptors for files and helpers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(CONNECTIONS, soft - RESERVED))


def listen(host: str, port: int, processes: int = 1) -> list[socket.socket]:
    """One listening socket per process, opened first of all because the port may be in use.

    IPv6 addresses may have brackets; `::` also accepts IPv4 where the system supports dual-stack sockets. For
    a host name, an IPv4 address is preferred. With port 0 the system chooses one port for all. Raises
    AddressError.
    """
    name = host.strip("[]")
    try:
        families = {found[0] for found in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)}
        family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
        both = family == socket.AF_INET6 and _is_unspecified(name) and socket.has_dualstack_ipv6()
        create = partial(socket.create_server, family=family, dualstack_ipv6=both)
        alone = create((name, port))
        if processes == 1:
            return [alone]
        # only a socket that does not share its port fails if another server uses it
        port = alone.getsockname()[1]
        alone.close()
        return [create((name, port), reuse_port=True) for _ in range(processes)]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise AddressError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host or --port"
        ) from error


def _is_unspecified(name: str) -> bool:
    """Whether it stands for all addresses of the machine: `::`, `0::0`."""
    try:
        return ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False


def handles(listener: socket.socket) -> list[socket.socket]:
    """Duplicates of the socket: uvloop accepts one connection per socket and iteration.

    With a single socket, a busy server with long iterations would accept so few that the backlog fills up,
    and a health check could wait for a minute.
    """
    return [listener, *(listener.dup() for _ in range(ACCEPTED - 1))]
