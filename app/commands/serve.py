"""`charloom serve`: the server in this process, the worker in one beside it, both ended together."""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import ExitStack

import uvicorn
from fastapi import FastAPI

from app.api.shedding import Shedding
from app.commands.supervisor import Supervisor
from app.intake.default_runs import queue_defaults
from app.logs import configure_logging
from app.main import create_app
from app.server.protocol import bounded_http
from app.settings import PREFIX, Settings
from app.signals import interruptible
from app.store.run_store import RunStore
from model.errors import CharloomError

WORKER_NICE = 5  # a third of the server's share of a busy core
ACCEPTED = 32  # connections in a turn of the event loop

logger = logging.getLogger(__name__)


class AddressError(CharloomError):
    """The address cannot be listened on."""


def serve(settings: Settings, with_worker: bool) -> None:
    """Serve until a signal. Raises AddressError, TextError (no text for a fresh store), OSError."""
    configure_logging(settings)
    with interruptible(), listen(settings.host, settings.port) as listener, ExitStack() as stack:
        if with_worker:
            queue_defaults(RunStore(settings.store), settings)
            for _ in range(settings.workers):
                worker = Supervisor(worker_command(), worker_environment(settings))
                worker.start()
                stack.callback(worker.stop)
        host, port = listener.getsockname()[:2]
        logger.info("serving at http://%s:%d", f"[{host}]" if ":" in host else host, port)
        http = bounded_http(settings.read_seconds)

        def build() -> FastAPI:
            app = create_app(settings)
            http.door = Shedding.of(app.state.services)
            return app

        config = uvicorn.Config(
            build,
            factory=True,
            log_config=None,
            access_log=False,
            http=http,
            ws="none",
            # the application ends what is left after the grace; this is for connections that hang
            timeout_graceful_shutdown=round(settings.grace_seconds) + 2,
        )
        uvicorn.Server(config).run(sockets=handles(listener))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port in use is known before anything else starts. Raises AddressError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise AddressError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host or --port"
        ) from error


def handles(listener: socket.socket) -> list[socket.socket]:
    """The socket many times over: uvloop takes one new connection from each in a turn of its loop.

    From a single one a busy server, whose turns are long, would take so few that the system's queue for them
    is full, and a health check waits for a minute behind it.
    """
    return [listener, *(listener.dup() for _ in range(ACCEPTED - 1))]


def worker_command() -> list[str]:
    # -P: the current folder may hold an `app` of its own
    command = [sys.executable, "-P", "-m", "app.cli", "worker"]
    return [*command, "--nice", str(WORKER_NICE), "--parent", str(os.getpid())]


def worker_environment(settings: Settings) -> dict[str, str]:
    shared = ("store", "log_level", "log_format", "workers", "max_store_bytes")
    return os.environ | {f"{PREFIX}{name.upper()}": str(getattr(settings, name)) for name in shared}
