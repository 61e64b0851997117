"""`charloom serve`: the server in this process, the worker in one beside it, both ended together."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, suppress

from app.commands.supervisor import Supervisor
from app.intake.default_runs import queue_defaults
from app.logs import configure_logging
from app.main import build_server
from app.server.process import handles, listen, raise_descriptor_limit
from app.settings import PREFIX, Settings
from app.signals import interrupt, on_signals
from app.store.run_store import RunStore

WORKER_NICE = 5  # a third of the server's share of a busy core

logger = logging.getLogger(__name__)


def serve(settings: Settings, with_worker: bool) -> None:
    """Serve until a signal. Raises AddressError, ConfigError, OSError, TextError (a fresh store, no text)."""
    configure_logging(settings)
    raise_descriptor_limit()
    with (
        suppress(KeyboardInterrupt),
        on_signals(interrupt),
        listen(settings.host, settings.port) as listener,
        ExitStack() as stack,
    ):
        server = build_server(settings)
        if with_worker:
            queue_defaults(RunStore(settings.store), settings)
            for _ in range(settings.workers):
                worker = Supervisor(worker_command(), worker_environment(settings))
                worker.start()
                stack.callback(worker.stop)
        host, port = listener.getsockname()[:2]
        logger.info("serving at http://%s:%d", f"[{host}]" if ":" in host else host, port)
        server.run(sockets=handles(listener))


def worker_command() -> list[str]:
    # -P: the current folder may hold an `app` of its own
    command = [sys.executable, "-P", "-m", "app.cli", "worker"]
    return [*command, "--nice", str(WORKER_NICE), "--parent", str(os.getpid())]


def worker_environment(settings: Settings) -> dict[str, str]:
    shared = ("store", "log_level", "log_format", "workers", "max_store_bytes")
    return os.environ | {f"{PREFIX}{name.upper()}": str(getattr(settings, name)) for name in shared}
