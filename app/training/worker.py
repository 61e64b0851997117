"""The worker: takes the runs of a store in turn and trains each to its end.

Any number of workers, on any machines, may work on one store: what keeps them apart is the lease of each run.
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

from app.store.claims import LeaseLostError
from app.store.files import DISK_FULL, open_new
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Reserve
from app.store.temporaries import temporary_in
from app.training.queue import Queue
from app.training.trainer import Cadence, train_run
from model.errors import CharloomError

CONTROL_SECONDS = 0.2  # how often a run in training looks for what is asked of it
RANK_SECONDS = 1.0  # and whether another has become more important
RANK_SHARE = 0.1  # of its time, at most: on a network file system, thousands of runs take seconds to read
LONGEST_REASON = 1000  # characters that a run's status has of it
CLEARING_SECONDS = 600.0  # between two looks for what killed processes left
ATTEMPTS = 3  # workers that may die in a row at one step of a run

logger = logging.getLogger(__name__)


def prepare(store: RunStore) -> None:
    """Make sure that this process may train the runs of a store.

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
    """A full disk is no reason to leave: the runs wait for space, and say so."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise


class Worker:
    """Takes the runs of a store in turn: those already begun first, then by their place in the queue.

    Attributes:
        cores: a run with more parts than this is left to other workers, for so many seconds of `patience`.
        until_idle: whether `run` ends when nothing is left to be trained.
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
        self._next: tuple[Run, ExitStack] | None = None

    def run(self) -> None:
        """Train until a stop is requested, or with `until_idle` until there is nothing to train."""
        self._serving = True
        # more threads cost more than they give at these sizes, and the server wants the other cores
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
        else:  # the disk is as full as it was, and the run's state says so
            self._queue.leave(run.name, self.retry_seconds)

    def _clear_leftovers(self) -> None:
        """Now and then remove what killed processes left; what cannot be removed is logged."""
        now = time.monotonic()
        if now < self._clearing_due:
            return
        self._clearing_due = now + CLEARING_SECONDS
        try:
            self.store.clear_leftovers()
        except OSError as error:
            logger.error("temporary files of killed processes cannot be removed: %s", error)

    def next_run(self) -> Run | None:
        """The run to train now, if any: of the highest priority, of those the ones already begun."""
        if self._next is not None:
            return self._next[0]
        for run in self._queue.look():
            self._put_down(run)
        return self._queue.first()

    def may_take(self, run: Run) -> bool:
        """Whether it is time to try that run, after another held it or the disk was full."""
        return self._queue.ready(run)

    def train(self, run: Run) -> None:
        """Train one run; whatever goes wrong becomes its state and reason, and the worker goes on."""
        try:
            with self._taking(run) as held:
                if self._queue.wants(held):
                    self._train(held)
                self._queue.taken(held)
        except Timeout:  # by another worker of this store, or it is being deleted
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
        """Hold the run in this block; it is held already if another was interrupted for it."""
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
            logger.warning("%s; this worker writes nothing more of it", error)
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
        """Write down that the run is being trained, and how many workers have died at its newest checkpoint.

        Raises CharloomError after `attempts` of them, OSError.
        """
        status, step = run.status, max(run.checkpoints(), default=0)
        deaths = 0
        if status.state == "training":  # its worker was killed: nothing else leaves this state
            deaths = status.deaths + 1 if status.died_at == step else 1
        if deaths >= self.attempts:
            raise CharloomError(
                f"the worker died {deaths} times in a row at step {step:,} of this run, probably killed "
                f"because it used too much memory: give the worker more memory and resume the run, or train "
                "with fewer units, layers, members or streams"
            )
        changes = {"state": "training", "reason": None, "retry_at": None, "heartbeat": time.time()}
        changes |= {"host": socket.gethostname(), "process": os.getpid()}
        run.write_status(status.model_copy(update=changes | {"deaths": deaths, "died_at": step}))

    def _interruption(self, run: Run) -> Callable[[], bool]:
        """Whether the training of `run` should stop: with the worker, on request, or for another run."""
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
        """Whether a more important run waits, and is now held here: so one worker alone puts its run down."""
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

    def _put_down(self, run: Run) -> None:
        """A run that was to stop and whose worker was killed first: nobody is training it any more."""
        try:
            with self.store.holding(run.name) as held:
                if held.status.state == "training":
                    held.write_status(held.status.model_copy(update={"state": "queued"}))
        except (Timeout, LeaseLostError):
            self._queue.held_elsewhere(run.name)
        except OSError as error:
            logger.error("run %s: its state could not be written: %s", run.name, error)

    def _pause(self, run: Run, error: OSError) -> None:
        self._set_aside(run, "paused", self._full_disk(error))

    def _full_disk(self, error: OSError) -> str:
        reason = error.strerror or os.strerror(error.errno or errno.ENOSPC)
        return f"{reason}: free some space; retrying every {self.retry_seconds:g} s"

    def _set_aside(self, run: Run, state: Literal["paused", "failed"], reason: str) -> None:
        logger.error("run %s %s: %s", run.name, state, reason)
        # also where the state cannot be written, the others must get their turn
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
        except (OSError, LeaseLostError) as error:
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
    """What happened to which file; clients that read it must not learn where the store is."""
    if error.strerror is None or error.filename is None:
        return error.strerror or str(error)
    return f"{Path(os.fsdecode(error.filename)).name}: {error.strerror}"
