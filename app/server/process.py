"""The server as a process: the sockets it listens on, and the signals that end it."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from app.signals import on_signals
from model.errors import CharloomError

CONNECTIONS = 4096
RESERVED = 256  # descriptors for listening sockets, files and helper processes
ACCEPTED = 32  # connections in a turn of the event loop


class AddressError(CharloomError):
    """The address cannot be listened on."""


class Server(uvicorn.Server):
    """uvicorn's server, which tells its application as soon as it is asked to end.

    uvicorn waits for the open connections first; a long text, or a stream, would keep it waiting until then.

    Args:
        drain: called in the event loop at the first signal, and again at any later one with True: what is in
            progress is then to end immediately.

    `serving` is set once requests are answered, in the event loop `loop`.
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
        """Also hangups; and no signal is raised again at the end, as uvicorn does."""
        loop = asyncio.get_running_loop()
        with on_signals(lambda number: loop.call_soon_threadsafe(self.end)):
            yield

    def end(self) -> None:
        """Stop accepting, and let what is in progress end; at once if that was asked for before."""
        again, self.should_exit = self.should_exit, True
        self._drain(again)
        if again:
            for connection in list(self.server_state.connections):
                connection.transport.close()


def raise_descriptor_limit() -> None:
    """Takes as many descriptors as the system allows this process, up to what it can use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + RESERVED
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def most_connections() -> int:
    """How many connections may be open, so that descriptors are left for files and helpers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(CONNECTIONS, soft - RESERVED))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port in use is known before anything else starts. Raises AddressError.

    IPv6 addresses may have brackets; `::` listens to IPv4 too, where the system can do both.
    """
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    both = name == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((name, port), family=family, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise AddressError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host or --port"
        ) from error


def handles(listener: socket.socket, processes: int = 1) -> list[socket.socket]:
    """The socket many times over: uvloop takes one new connection from each in a turn of its loop.

    From a single one a busy server, whose turns are long, would take so few that the system's queue for them
    is full, and a health check waits for a minute behind it. Of several processes each takes its part.
    """
    # else `dup` would make it block for all processes, whose event loops would then stand still in `accept`
    listener.setblocking(False)
    return [listener, *(listener.dup() for _ in range(max(1, ACCEPTED // processes) - 1))]
