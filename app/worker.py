"""The worker process, which trains the queued runs of a store, one at a time.

Any number of workers may work on one store, from any machine that has it. Start one with `charloom worker`,
or with `python -m app.worker`, which reads only the environment.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
from contextlib import suppress

from app.intake.default_runs import queue_defaults
from app.logs import configure_logging
from app.settings import Settings, load_settings
from app.signals import Stop, stop_on_signals
from app.store.capacity import of_this_process, publish
from app.store.run_store import RunStore
from app.streams import prepare_standard_streams, visible
from app.training.trainer import Cadence
from app.training.worker import Worker, prepare
from model.errors import CharloomError, TextError

USAGE_ERROR = 2
PATIENCE_SECONDS = 5.0  # for which a run with more parts than cores is left to a larger machine

logger = logging.getLogger(__name__)


def run_worker(
    settings: Settings,
    *,
    nice: int = 0,
    parent: int | None = None,
    cores: int | None = None,
    until_idle: bool = False,
) -> None:
    """Run a worker on the configured store until a signal, or the end of process `parent`, stops it.

    The caller configures logging.

    Args:
        nice: lowers the priority, so that a server on the same machine stays responsive.
        parent: the process that started the worker and that queues the default runs.
        cores: a run with more parts is left to other workers. None means the cores of the machine or
            container, and leaves such a run only for PATIENCE_SECONDS.
        until_idle: stop when no run is left to train.
    Raises StoreBusyError (a worker of an earlier version holds the store), RunFileError, or OSError if the
    store is not writable.
    """
    os.nice(nice)
    store, stop = RunStore(settings.store, settings.lease_seconds), Stop(parent)
    cadence = Cadence(store_bytes=settings.max_store_bytes)
    with stop_on_signals(stop):
        prepare(store)
        _compare_leases(store, settings)
        if parent is None and not until_idle:
            _queue_defaults(store, settings)
        with suppress(OSError):  # on a full disk, the servers keep using the old value
            publish(store)
        logger.info("worker of %s, process %d on %s", store.root, os.getpid(), socket.gethostname())
        mine, patience = (of_this_process().cores, PATIENCE_SECONDS) if cores is None else (cores, math.inf)
        Worker(store, stop, cadence=cadence, cores=mine, patience=patience, until_idle=until_idle).run()
    logger.info("worker stopped")


def _compare_leases(store: RunStore, settings: Settings) -> None:
    agreed = store.leases.seconds
    if "lease_seconds" in settings.model_fields_set and settings.lease_seconds != agreed:
        logger.warning(
            "CHARLOOM_LEASE_SECONDS=%g is ignored: the leases of this store last %g s; docs/scaling.md says "
            "how to change that",
            settings.lease_seconds,
            agreed,
        )


def _queue_defaults(store: RunStore, settings: Settings) -> None:
    try:
        queue_defaults(store, settings)
    except (TextError, OSError) as error:
        logger.warning("no default runs: %s; waiting for other runs", error)


def main() -> int:
    """Run a worker configured by the environment alone; return its exit code. Errors become one line."""
    prepare_standard_streams()
    try:
        settings = load_settings()
        configure_logging(settings)
        run_worker(settings)
    except (CharloomError, OSError) as error:
        print(visible(f"charloom worker: {error}"), file=sys.stderr)
        return USAGE_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
