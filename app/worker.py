"""The worker process: it trains the queued runs of a store, one at a time.

As many workers hold a store as it is configured for, each by a lock that dies with it. A worker writes only
below the runs' folders; the servers that read them need not know it. Start it with `charloom worker`, or from
the environment alone with `python -m app.worker`.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress

from app.intake.default_runs import queue_defaults
from app.logs import configure_logging
from app.settings import Settings, load_settings
from app.signals import Stop, stop_on_signals
from app.store.capacity import publish
from app.store.run_store import RunStore
from app.streams import prepare_standard_streams
from app.training.trainer import Cadence
from app.training.worker import Worker, hold
from model.errors import CharloomError, TextError

USAGE_ERROR = 2

logger = logging.getLogger(__name__)


def run_worker(settings: Settings, *, wait: bool = True, nice: int = 0, parent: int | None = None) -> None:
    """Be the worker of the configured store until a signal, or the end of process `parent`, stops it.

    A worker with a parent leaves the default runs to that. `nice` lowers the priority, so that a server
    beside it answers first. Logging is configured by the caller.
    Raises StoreBusyError (with `wait` false), or OSError if the store is not writable.
    """
    os.nice(nice)
    store, stop = RunStore(settings.store), Stop(parent)
    cadence = Cadence(store_bytes=settings.max_store_bytes)
    with stop_on_signals(stop), hold(store, stop, wait, settings.workers) as held:
        if held:
            if parent is None:
                _queue_defaults(store, settings)
            with suppress(OSError):  # a full disk: the servers go by what they had
                publish(store)
            logger.info("worker holds %s", store.root)
            Worker(store, stop, cadence=cadence).run()
    logger.info("worker stopped")


def _queue_defaults(store: RunStore, settings: Settings) -> None:
    try:
        queue_defaults(store, settings)
    except (TextError, OSError) as error:
        logger.warning("no default runs: %s; waiting for others", error)


def main() -> int:
    """The worker from the environment alone; its exit code. An error becomes one line."""
    prepare_standard_streams()
    try:
        settings = load_settings()
        configure_logging(settings)
        run_worker(settings)
    except (CharloomError, OSError) as error:
        print(f"charloom worker: {error}", file=sys.stderr)
        return USAGE_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
