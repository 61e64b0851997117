"""The worker: trains the runs of a store, one after another.

Any number of workers, on any machines, can share a store: the lease of each run excludes the others.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from filelock import LeaseSettingsMismatch, Timeout
from threadpoolctl import threadpool_limits

from app.errors import RunFileError
from app.store.claims import LeaseLostError
from app.store.files import DISK_FULL, open_new
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Reserve
from app.store.temporaries import temporary_in
from app.training.queue import Queue
from app.training.recovery import count_deaths
from app.training.trainer import Cadence, train_run
from model.errors import CharloomError

CONTROL_SECONDS = 0.2  # interval of reading the requests for the run in training
RANK_SECONDS = 1.0  # minimum interval of checking for runs of higher priority
RANK_SHARE = 0.1  # maximum fraction of the time for that: reading thousands of runs over NFS takes seconds
LONGEST_REASON = 1000  # characters
CLEARING_SECONDS = 600.0  # interval of removing the files of killed processes
ATTEMPTS = 3  # deaths of workers in a row, at the same step of a run, after which the run fails

logger = logging.getLogger(__name__)


def prepare(store: RunStore) -> None:
    """Makes sure that this process can train the runs of a store.

    Raises StoreBusyError if a worker of an earlier version holds it, RunFileError, OSError if it is not
    writable.
    """
    store.make_root()
    store.leases.prepare()
    probe = temporary_in(store.root)
    with suppress_full_disk():
        os.close(open_new(probe))
    probe.unlink(missing_ok=True)


@contextmanager
def suppress_full_disk() -> Iterator[None]:
    """Ignores a full disk: the worker starts, and its runs wait for space."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise


class Worker:
    """Trains the runs of a store: by priority, then those already begun, then by their place in the queue.

    Args:
        store: the store.
        should_stop: is called often; training stops when it returns True.
        on_status: is called after each write of a run's status.
        poll_seconds: time between two reads of the store while there is nothing to train.
        retry_seconds: time for which a run is skipped after an error.
        cadence: how often runs are saved.
        attempts: deaths of workers in a row after which a run fails.
        cores: a run with more parts than this is left to other workers for `patience` seconds.
        until_idle: whether `run` returns when there is nothing left to train.
    """

    def __init__(
        self,
        store: RunStore,
        should_stop: Callable[[], bool],
        on_status: Callable[[Status], None] = lambda status: None,
        poll_seconds: float = 0.5,
        retry_seconds: float = 10.0,
        cadence: Cadence | None = None,
        attempts: int = ATTEMPTS,
        cores: float = math.inf,
        patience: float = math.inf,
        until_idle: bool = False,
    ) -> None:
        self.store, self.should_stop, self.on_status = store, should_stop, on_status
        self.cadence, self.attempts, self.until_idle = cadence, attempts, until_idle
        self._reserve = Reserve(store.root)
        self._queue = Queue(store, cores, patience)
        self.poll_seconds, self.retry_seconds = poll_seconds, retry_seconds
        self._clearing_due = 0.0
        self._serving = False
        self._begun: set[str] = set()
        self._next: tuple[Run, ExitStack] | None = None

    def run(self) -> None:
        """Trains until a stop is requested or, with `until_idle`, until there is nothing left to train."""
        self._serving = True
        # at these sizes more BLAS threads are slower, and the server needs the other cores
        with threadpool_limits(1):
            try:
                while not self.should_stop():
                    self._clear_leftovers()
                    run = self.next_run()
                    if run is not None:
                        self._try(run)
                    elif self.until_idle and self._queue.idle():
                        return
                    else:
                        time.sleep(self.poll_seconds)
            finally:
                if self._next is not None:
                    self._next[1].close()

    def _try(self, run: Run) -> None:
        if self._reserve.keep() or run.status.retry_at is None:
            self.train(run)
        else:  # the disk is still full, as the run's status says
            self._queue.leave(run.name, self.retry_seconds)

    def _clear_leftovers(self) -> None:
        """Removes what killed processes left, every CLEARING_SECONDS; logs what cannot be removed."""
        now = time.monotonic()
        if now < self._clearing_due:
            return
        self._clearing_due = now + CLEARING_SECONDS
        try:
            self.store.clear_leftovers()
        except OSError as error:
            logger.error("temporary files of killed processes cannot be removed: %s", error)

    def next_run(self) -> Run | None:
        """The run to train now; None if there is none."""
        if self._next is not None:
            return self._next[0]
        for run in self._queue.look():
            self._requeue(run)
        return self._queue.first()

    def may_take(self, run: Run) -> bool:
        """Whether it is time to try this run (again)."""
        return self._queue.ready(run)

    def train(self, run: Run) -> None:
        """Trains one run. Errors are written to its status; nothing is raised."""
        try:
            with self._taking(run) as held:
                if self._queue.wants(held):
                    self._train(held)
                self._queue.taken(held)
        except Timeout:  # another worker trains it, or it is being deleted
            self._queue.held_elsewhere(run.name)
        except LeaseSettingsMismatch as error:
            logger.error("run %s: %s", run.name, error)
            self._queue.leave(run.name, self.retry_seconds)
        except FileNotFoundError:
            logger.info("run %s was deleted", run.name)
        except OSError as error:
            self._cannot_hold(run, error)

    @contextmanager
    def _taking(self, run: Run) -> Iterator[Run]:
        """Holds the run in this block; `_outranked` may have acquired its lease already."""
        if self._next is None:
            with self.store.holding(run.name) as held:
                yield held
            return
        (held, stack), self._next = self._next, None
        with stack:
            yield held

    def _cannot_hold(self, run: Run, error: OSError) -> None:
        self._queue.leave(run.name, self.retry_seconds)
        if error.errno not in DISK_FULL:
            logger.error("run %s cannot be trained: %s", run.name, _without_folder(error))
            return
        self._reserve.give_up()
        try:
            with self.store.holding(run.name) as held:
                self._pause(held, error)
        except (Timeout, OSError):
            logger.error("run %s paused: %s", run.name, self._full_disk(error))

    def _train(self, run: Run) -> None:
        try:
            self._count_attempt(run)
            self.store.announce()
            if train_run(run, self._interruption(run), self.on_status, self.cadence):
                logger.info("run %s is finished", run.name)
        except LeaseLostError as error:
            logger.warning("%s; this worker writes nothing more to it", error)
            self._queue.leave(run.name, self.store.leases.seconds)
        except OSError as error:
            if not run.path.exists():
                logger.info("run %s was deleted", run.name)
            elif error.errno in DISK_FULL:
                self._pause(run, error)
            else:
                self._set_aside(run, "failed", _without_folder(error))
        except CharloomError as error:
            self._set_aside(run, "failed", str(error))
        except Exception as error:
            logger.exception("run %s failed with an unexpected error", run.name)
            self._set_aside(run, "failed", f"unexpected {type(error).__name__}: {error}")
        self.store.announce()

    def _count_attempt(self, run: Run) -> None:
        """Sets the status to "training", with the number of workers that have died at the newest checkpoint.

        Raises CharloomError after `attempts` of them, OSError.
        """
        status, step = run.status, max(run.checkpoints(), default=0)
        deaths, lost = count_deaths(status, step, run.name in self._begun)
        if deaths >= self.attempts:
            raise CharloomError(
                f"the worker died {deaths} times in a row at step {step:,} of this run, probably killed "
                f"because it used too much memory: give the worker more memory and resume the run, or train "
                "with fewer units, layers, members or streams"
            )
        changes: dict[str, object] = {"state": "training", "reason": None, "retry_at": None}
        changes |= {"heartbeat": time.time(), "host": socket.gethostname(), "process": os.getpid()}
        changes |= {"deaths": deaths, "died_at": step, "lost": lost}
        run.write_status(status.model_copy(update=changes))
        self._begun.add(run.name)

    def _interruption(self, run: Run) -> Callable[[], bool]:
        """A function that says whether `run` should stop: with the worker, on request or for another run."""
        look_at, rank_at = 0.0, time.monotonic() + RANK_SECONDS

        def interrupted() -> bool:
            nonlocal look_at, rank_at
            if self.should_stop():
                return True
            now = time.monotonic()
            if now < look_at:
                return False
            look_at = now + CONTROL_SECONDS
            if run.control.wanted in ("pause", "stop"):
                return True
            if now < rank_at or not self._serving:
                return False
            self._clear_leftovers()
            outranked = self._outranked(run)
            end = time.monotonic()
            rank_at = end + max(RANK_SECONDS, (end - now) * (1 / RANK_SHARE - 1))
            return outranked

        return interrupted

    def _outranked(self, run: Run) -> bool:
        """Whether a run of higher priority waits. Takes its lease, so that only one worker is interrupted."""
        self._queue.look()
        urgent = self._queue.more_important(run.control.priority, RANK_SECONDS)
        if urgent is None:
            return False
        with ExitStack() as stack:
            try:
                held = stack.enter_context(self.store.holding(urgent.name))
            except (Timeout, OSError):
                return False
            if self._queue.wants(held):
                self._next = held, stack.pop_all()
                return True
        return False

    def _requeue(self, run: Run) -> None:
        """Resets the state of a run that was asked to stop but whose worker was killed before it did."""
        try:
            with self.store.holding(run.name) as held:
                if held.status.state == "training":
                    held.write_status(held.status.model_copy(update={"state": "queued"}))
        except (Timeout, LeaseLostError):
            self._queue.held_elsewhere(run.name)
        except (OSError, RunFileError) as error:
            self._queue.leave(run.name, self.retry_seconds)
            logger.error("run %s: its state could not be written: %s", run.name, error)

    def _pause(self, run: Run, error: OSError) -> None:
        self._set_aside(run, "paused", self._full_disk(error))

    def _full_disk(self, error: OSError) -> str:
        reason = error.strerror or os.strerror(error.errno or errno.ENOSPC)
        return f"{reason}: free some space; retrying every {self.retry_seconds:g} s"

    def _set_aside(self, run: Run, state: Literal["paused", "failed"], reason: str) -> None:
        logger.error("run %s %s: %s", run.name, state, reason)
        # even if the status cannot be written, other runs must get their turn
        self._queue.leave(run.name, self.retry_seconds)
        now = time.time()
        retry_at = now + self.retry_seconds if state == "paused" else None
        changes = {
            "state": state,
            "reason": reason[:LONGEST_REASON],
            "heartbeat": now,
            "retry_at": retry_at,
            "expected_end": None,
        }
        try:
            self._write(run, run.status.model_copy(update=changes))
        except (OSError, LeaseLostError, RunFileError) as error:
            logger.error("run %s: its state could not be written: %s", run.name, error)

    def _write(self, run: Run, status: Status) -> None:
        try:
            run.write_status(status)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            self._reserve.give_up()
            run.write_status(status)


def _without_folder(error: OSError) -> str:
    """The error and the file's name, without its directory, which clients must not see."""
    if error.strerror is None or error.filename is None:
        return error.strerror or str(error)
    return f"{Path(os.fsdecode(error.filename)).name}: {error.strerror}"
