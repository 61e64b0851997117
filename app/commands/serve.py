"""`charloom serve`: runs one or more server processes and their workers, and stops them together."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from contextlib import ExitStack, suppress

from app.commands.narration import Narrator, say
from app.commands.supervisor import Supervisor
from app.intake.default_runs import queue_defaults
from app.logs import configure_logging
from app.main import build_server
from app.server.process import handles, listen, raise_descriptor_limit
from app.server.processes import Processes
from app.server.shared import shared_folder
from app.settings import PREFIX, Settings
from app.signals import interrupt, on_signals
from app.store.capacity import whole_cores
from app.store.run_store import RunStore

logger = logging.getLogger(__name__)

WORKER_NICE = 5  # on a busy core, a worker gets a third of the server's share


def serve(settings: Settings, with_worker: bool) -> None:
    """Serve until a signal. Raises AddressError, ConfigError, OSError, TextError (no text to train on)."""
    settings = with_level_for_people(settings)
    configure_logging(settings)
    raise_descriptor_limit()
    count = process_count(settings)
    with suppress(KeyboardInterrupt), on_signals(interrupt), ExitStack() as stack:
        listeners = listen(settings.host, settings.port, count)
        for listener in listeners:
            stack.enter_context(listener)
        server = build_server(settings)  # even for several processes, to find errors before they start
        store = RunStore(settings.store, settings.lease_seconds)
        narrator = Narrator(store)
        if with_worker:
            queue_defaults(store, settings)
            stack.callback(narrator.say_goodbye)
            for _ in range(settings.workers):
                worker = Supervisor(worker_command(), worker_environment(settings))
                worker.start()
                stack.callback(worker.stop)
        host, port = listeners[0].getsockname()[:2]
        warn_if_open(host, settings)
        say(f"Open {url_of(host, port)}")
        if with_worker and settings.log_format == "console":
            stack.enter_context(narrator)
        if count == 1:
            server.run(sockets=handles(listeners[0]))
        else:
            Processes(build_server, settings, listeners, stack.enter_context(shared_folder(count))).run()


def url_of(host: str, port: int) -> str:
    """The server's address for a browser on this machine."""
    if ipaddress.ip_address(host).is_unspecified:
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def warn_if_open(host: str, settings: Settings) -> None:
    """Log a warning if other machines can reach the server without a key."""
    if not settings.api_keys.get_secret_value() and not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "anyone who reaches %s can train, read and delete: set CHARLOOM_API_KEYS, or listen on 127.0.0.1",
            host,
        )


def process_count(settings: Settings) -> int:
    return whole_cores() if settings.processes == "auto" else settings.processes


def with_level_for_people(settings: Settings) -> Settings:
    """Log only warnings by default, because the narrator prints the progress; JSON logs are unaffected."""
    if settings.log_format == "json" or "log_level" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"log_level": "warning"})


def worker_command() -> list[str]:
    # -P: the current directory may contain another `app`
    command = [sys.executable, "-P", "-m", "app.cli", "worker"]
    return [*command, "--nice", str(WORKER_NICE), "--parent", str(os.getpid())]


def worker_environment(settings: Settings) -> dict[str, str]:
    shared = ("store", "log_level", "log_format", "max_store_bytes")
    values = {f"{PREFIX}{name.upper()}": getattr(settings, name) for name in shared}
    return os.environ | {name: str(value) for name, value in values.items() if value is not None}
