"""`charloom serve`: the server in this process, the worker in one beside it, both ended together."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.api.shedding import Shedding
from app.intake.default_runs import queue_defaults
from app.logs import configure_logging
from app.main import create_app
from app.server.protocol import bounded_http
from app.settings import PREFIX, Settings
from app.store.run_store import RunStore
from model.errors import CharloomError

WORKER_NICE = 5  # a third of the server's share of a busy core
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a worker that died is started again
HEALTHY_SECONDS = 60.0  # a worker that lived this long is started again after the first pause
LONGEST_STOP = 5.0
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


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM end this block, in order and without a traceback."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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


class Supervisor:
    """Keeps a child process running: started again when it dies, ever more slowly; ended with its parent."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.command, self.environment = command, environment
        self.process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the child to end, and make it if it does not."""
        with self._starting:
            self._stopping.set()
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(LONGEST_STOP)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                self.process.kill()
        self._thread.join()

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            with self._starting:
                if self._stopping.is_set():
                    return
                # a session of its own: Ctrl-C in the terminal is for the parent, which then ends the child
                self.process = subprocess.Popen(  # noqa: S603 - this very program
                    self.command, env=self.environment, start_new_session=True
                )
            began = time.monotonic()
            code = self.process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > HEALTHY_SECONDS:
                pause = FIRST_PAUSE
            logger.error("the worker ended with code %d; started again in %g s", code, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
