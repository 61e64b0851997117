"""The worker: takes the runs of a store in turn and trains each to its end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, Timeout
from threadpoolctl import threadpool_limits

from app.store.files import DISK_FULL
from app.store.groups import waits
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Reserve
from app.training.trainer import Cadence, train_run
from model.errors import CharloomError

CONTROL_SECONDS = 0.2  # how often a run in training looks for what is asked of it
RANK_SECONDS = 1.0  # and whether another has become more important
LONGEST_REASON = 1000  # characters that a run's status has of it
CLEARING_SECONDS = 600.0  # between two looks for what killed processes left
ATTEMPTS = 3  # workers that may die in a row at one step of a run

logger = logging.getLogger(__name__)


class StoreBusyError(CharloomError):
    """Another worker holds the store."""


@contextmanager
def hold(store: RunStore, should_stop: Callable[[], bool], wait: bool, workers: int = 1) -> Iterator[bool]:
    """Hold one of the store's `workers` locks in this block.

    Yields False if a stop was requested while waiting for one. Raises StoreBusyError if other workers hold
    them all and `wait` is false, OSError if the store is not writable.
    """
    store.make_root()
    locks = [store.lock(store.worker_lock(place)) for place in range(1, workers + 1)]
    held = _first_free(locks)
    others = "another worker holds" if workers == 1 else f"{workers} other workers hold"
    if held is None and not wait:
        raise StoreBusyError(f"{others} {store.root}: stop it first, or let it do the work")
    if held is None:
        logger.warning("%s %s; waiting for one to end", others, store.root)
    while held is None and not should_stop():
        time.sleep(0.2)
        held = _first_free(locks)
    try:
        yield held is not None
    finally:
        if held is not None:
            held.release()


def _first_free(locks: Sequence[BaseFileLock]) -> BaseFileLock | None:
    """The first of `locks` that nobody holds, now held; None without any."""
    for lock in locks:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return lock
    return None


class Worker:
    """Takes the runs of a store in turn: those already begun first, then by their place in the queue."""

    def __init__(
        self,
        store: RunStore,
        should_stop: Callable[[], bool],
        on_status: Callable[[Status], None] = lambda status: None,
        poll_seconds: float = 0.5,
        retry_seconds: float = 10.0,
        cadence: Cadence | None = None,
        attempts: int = ATTEMPTS,
    ) -> None:
        self.store, self.should_stop, self.on_status = store, should_stop, on_status
        self.cadence, self.attempts = cadence, attempts
        self._reserve = Reserve(store.root)
        self.poll_seconds, self.retry_seconds = poll_seconds, retry_seconds
        self._not_before: dict[str, float] = {}
        self._clearing_due = 0.0

    def run(self) -> None:
        """Train until a stop is requested. Only for the holder of the store's lock."""
        # more threads cost more than they give at these sizes, and the server wants the other cores
        with threadpool_limits(1):
            while not self.should_stop():
                self._clear_leftovers()
                run = self.next_run()
                if run is None:
                    time.sleep(self.poll_seconds)
                elif self._reserve.keep() or run.status.retry_at is None:
                    self.train(run)
                else:  # the disk is as full as it was, and the run's state says so
                    self._not_before[run.name] = time.monotonic() + self.retry_seconds

    def _clear_leftovers(self) -> None:
        """Now and then remove what killed processes left; what cannot be removed is logged."""
        now = time.monotonic()
        if now < self._clearing_due:
            return
        self._clearing_due = now + CLEARING_SECONDS
        try:
            self.store.clear_leftovers()
        except OSError as error:
            logger.error("what killed processes left cannot be removed: %s", error)

    def next_run(self) -> Run | None:
        """The run to train now, if any: of the highest priority, of those the ones already begun."""
        waiting = []
        for run in self.store.list():
            control = run.control
            if control.wanted in ("pause", "stop") and run.status.state == "training":
                self._put_down(run)
            status = run.standing
            ours = status.state in ("queued", "training") or status.retry_at is not None
            if (
                ours
                and not waits(self.store, run)
                and time.monotonic() >= self._not_before.get(run.name, 0.0)
            ):
                fresh = status.step == 0 and status.state == "queued"
                waiting.append((-control.priority, fresh, run.spec.position, run))
        return min(waiting, key=lambda item: item[:3])[3] if waiting else None

    def train(self, run: Run) -> None:
        """Train one run; whatever goes wrong becomes its state and reason, and the worker goes on."""
        try:
            with self.store.holding(run.name):
                self._train(run)
        except Timeout:  # by another worker of this store, or it is being deleted
            self._not_before[run.name] = time.monotonic() + self.poll_seconds

    def _train(self, run: Run) -> None:
        try:
            self._count_attempt(run)
            if train_run(run, self._interruption(run), self.on_status, self.cadence):
                logger.info("run %s is finished", run.name)
        except OSError as error:
            if not run.path.exists():
                logger.info("run %s was deleted", run.name)
            elif error.errno in DISK_FULL:
                reason = f"{error.strerror}: free some space; tried again every {self.retry_seconds:g} s"
                self._set_aside(run, "paused", reason)
            else:
                self._set_aside(run, "failed", _without_folder(error))
        except CharloomError as error:
            self._set_aside(run, "failed", str(error))
        except Exception as error:
            logger.exception("run %s met an unexpected error", run.name)
            self._set_aside(run, "failed", f"unexpected {type(error).__name__}: {error}")

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
                f"the worker died {deaths} times in a row at step {step:,} of this run, most likely killed "
                "because it used too much memory: give the worker more memory and resume the run, or train "
                "with fewer units, layers, members or streams"
            )
        changes = {"state": "training", "reason": None, "retry_at": None, "heartbeat": time.time()}
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
            if now < rank_at:
                return False
            rank_at = now + RANK_SECONDS
            self._clear_leftovers()
            return self._outranked(run)

        return interrupted

    def _outranked(self, run: Run) -> bool:
        priority = run.control.priority
        others = (other for other in self.store.list() if other.control.priority > priority)
        return any(other.standing.state == "queued" and not waits(self.store, other) for other in others)

    def _put_down(self, run: Run) -> None:
        """A run that was to stop and whose worker was killed first: nobody is training it any more."""
        try:
            with self.store.holding(run.name):
                if run.status.state == "training":
                    run.write_status(run.status.model_copy(update={"state": "queued"}))
        except Timeout:
            pass
        except OSError as error:
            logger.error("run %s: its state could not be written: %s", run.name, error)

    def _set_aside(self, run: Run, state: Literal["paused", "failed"], reason: str) -> None:
        logger.error("run %s %s: %s", run.name, state, reason)
        # also where the state cannot be written, the others must get their turn
        self._not_before[run.name] = time.monotonic() + self.retry_seconds
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
        except OSError as error:
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
