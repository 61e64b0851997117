"""Generation for many concurrent requests, in one thread, with continuous batching.

A request is a `Job`. It is admitted or refused when it is submitted, before any work. Its rows count against
the engine's limit until they have ended. Rows wait in one queue, first come, first served. The thread
advances the batch of each model by one block in turn; between blocks it removes the rows of cancelled and
late jobs and adds waiting ones.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from app.engine.job import Chunk, Job, wake
from app.engine.scheduler import Outcome, Scheduler
from app.errors import DeadlineError, DrainingError, OverloadedError
from model.generation import Row

LOOK_SECONDS = 0.05  # interval of the check for jobs past their deadline
SWITCH_SECONDS = 0.0005
UNKNOWN_WAIT = 1.0  # seconds; the Retry-After before a rate has been measured

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stats:
    """A snapshot of the engine.

    Attributes:
        running: rows in batches.
        waiting: rows in the queue.
        models: models with running rows.
        backlog: characters that the admitted rows still have to read or generate.
        characters: characters read or generated since the start.
        rate: characters per second of work, mostly of the last second; 0 before any work.
        blocks: blocks of all batches since the start.
    """

    running: int
    waiting: int
    models: int
    backlog: int
    characters: int
    rate: float
    blocks: int


class Engine:
    """Generates texts in its own thread.

    Args:
        max_rows: maximum number of rows generated at the same time, over all models.
        max_queue: maximum number of waiting rows.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, max_rows: int = 64, max_queue: int = 256, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.room = max_rows + max_queue
        self.clock = clock
        # guarded by this lock
        self._changed = threading.Condition()
        self._queue: deque[tuple[Job, Row]] = deque()
        self._cancelled: list[Job] = []
        self._held = 0  # rows admitted and not yet ended
        self._backlog = 0
        self._stop_at: float | None = None  # once set, no jobs are admitted
        # used only by the engine's thread
        self._scheduler = Scheduler(max_rows, clock)
        self._outbox: dict[asyncio.AbstractEventLoop, list[Callable[[], object]]] = {}
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._blas: threadpool_limits | None = None

    def start(self) -> None:
        """Starts the thread; call it once. BLAS is limited to one thread until the engine stops."""
        # each product releases the GIL; with the default interval it takes up to 5 ms to get it back
        sys.setswitchinterval(SWITCH_SECONDS)
        self._blas = threadpool_limits(1, "blas")
        self._thread.start()

    def drain(self, seconds: float) -> None:
        """Stops admitting jobs; those that have not ended after `seconds` fail with DrainingError."""
        with self._changed:
            until = self.clock() + seconds
            self._stop_at = until if self._stop_at is None else min(until, self._stop_at)
            self._changed.notify()

    def stop(self, seconds: float = 0.0) -> None:
        """Drains, and waits for the thread to end. Blocks, so do not call it in an event loop."""
        self.drain(seconds)
        if self._thread.ident is not None:
            self._thread.join()

    def submit(self, job: Job) -> None:
        """Admits a job. Thread-safe. Raises OverloadedError, DrainingError or DeadlineError otherwise."""
        rows = job.unfinished
        steps = sum(row.steps_left for row in rows)
        with self._changed:
            longest = max((row.steps_left for row in rows), default=0)
            self._admit(len(rows), longest, job.seconds)
            job.submitted = self.clock()
            job.deadline = None if job.seconds is None else job.submitted + job.seconds
            if rows:
                for row in rows:
                    row.watched |= job.streamed
                self._queue.extend((job, row) for row in rows)
                self._held += len(rows)
                self._backlog += steps
                self._changed.notify()
                return
        job.finish(job.submitted)  # there is nothing to read or generate
        job.notify_listener()

    def cancel(self, job: Job) -> None:
        """Ends a job after the current block, unless it has ended. Thread-safe."""
        if job.submitted is not None and job.ended is None:
            with self._changed:
                self._cancelled.append(job)

    async def run(self, job: Job) -> list[Row]:
        """Submits a job, waits for its end and returns its rows. Cancelling the task cancels the job.

        Raises OverloadedError, DrainingError, DeadlineError.
        """
        loop = asyncio.get_running_loop()
        end: asyncio.Future[None] = loop.create_future()
        job.listen(lambda: None if end.done() else end.set_result(None), loop)
        self.submit(job)
        try:
            await end
        finally:
            self.cancel(job)
        if job.error is not None:
            raise job.error
        return job.rows

    def stream(self, job: Job) -> AsyncIterator[list[Chunk]]:
        """Submits a job and returns an iterator of its chunks, which are merged while the consumer is slow.

        Closing the iterator cancels the job. Raises as `run` does; errors after admission are raised by the
        iterator.
        """
        arrived = asyncio.Event()
        job.listen(arrived.set, asyncio.get_running_loop())
        self.submit(job)
        return self._chunks(job, arrived)

    async def _chunks(self, job: Job, arrived: asyncio.Event) -> AsyncIterator[list[Chunk]]:
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                ended = job.ended is not None  # read before the chunks are taken, so that none is missed
                chunks = job.take()
                if chunks:
                    yield chunks
                if ended:
                    break
        finally:
            self.cancel(job)
        if job.error is not None:
            raise job.error

    def stats(self) -> Stats:
        """A snapshot of the engine. Thread-safe."""
        scheduler, running = self._scheduler, self._scheduler.running
        waiting = max(0, self._held - running)
        return Stats(
            running,
            waiting,
            scheduler.models,
            self._backlog,
            scheduler.characters,
            scheduler.rate,
            scheduler.blocks,
        )

    @property
    def draining(self) -> bool:
        """Whether the engine has stopped admitting jobs. Thread-safe."""
        return self._stop_at is not None

    @property
    def full(self) -> bool:
        """Whether not even a single row can be admitted. Thread-safe."""
        return self._held >= self.room and self._stop_at is None

    def overload(self, rows: int = 1) -> OverloadedError:
        """The error for a refusal of `rows` rows, with the time after which to try again."""
        wait = self._wait()
        return OverloadedError(
            f"{self._held} of {self.room} places are taken and this request needs {rows} more; try again in "
            f"about {wait:.1f} s",
            wait,
        )

    def _wait(self) -> float:
        """The estimated seconds until all admitted rows have ended."""
        rate = self._scheduler.rate
        return self._backlog / rate if rate else UNKNOWN_WAIT

    def _admit(self, rows: int, longest: int, seconds: float | None) -> None:
        if self._stop_at is not None:
            raise DrainingError("the server is stopping; try another one, or try again in a moment")
        if self._held and self._held + rows > self.room:  # an idle engine admits a job of any size
            raise self.overload(rows)
        rate = self._scheduler.rate
        wait = self._wait()
        if rate and seconds is not None and self._held > self._scheduler.running and wait > seconds:
            raise OverloadedError(
                f"the texts already waiting take about {wait:.1f} s, longer than the {seconds:g} s that a "
                f"request may take; try again in about {wait - seconds:.1f} s",
                wait - seconds,
            )
        needed = longest * self._scheduler.tick_seconds
        if seconds is not None and needed > seconds:
            raise DeadlineError(
                f"this would take about {needed:.1f} s, longer than the {seconds:g} s that a request may "
                "take; ask for fewer characters"
            )

    # everything below runs in the engine's thread

    def _run(self) -> None:
        try:
            while self._await_work():
                self._turn()
        except Exception:
            logger.exception("the engine failed and admits no more texts")
            self.drain(0)
        for job in self._jobs():
            self._end(job, DrainingError("the server stopped before the text was finished"))
        self._flush()
        if self._blas is not None:
            self._blas.restore_original_limits()

    def _await_work(self) -> bool:
        """Waits until there is work; returns False when the thread should stop."""
        with self._changed:
            while not self._held and self._stop_at is None:
                self._changed.wait()
            return self._stop_at is None or (self._held > 0 and self.clock() < self._stop_at)

    def _turn(self) -> None:
        """Removes and adds rows, then advances every batch by one block."""
        if self._cancelled:
            with self._changed:
                jobs, self._cancelled = self._cancelled, []
            for job in jobs:
                self._end(job)
        now = self.clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._drop_late(now)
        if self._queue and self._scheduler.running < self._scheduler.max_rows:
            self._add_waiting(now)
        for outcome in self._scheduler.turn():
            self._report(outcome)
        self._flush()

    def _jobs(self) -> dict[Job, None]:
        with self._changed:
            waiting = dict.fromkeys(job for job, _ in self._queue)
        return self._scheduler.jobs | waiting

    def _drop_late(self, now: float) -> None:
        for job in self._jobs():
            if job.deadline is not None and now >= job.deadline:
                self._end(job, DeadlineError(f"the text was not finished within {job.seconds:g} s"))

    def _add_waiting(self, now: float) -> None:
        with self._changed:
            joining = self._scheduler.take(self._queue)
        for index, (job, row) in enumerate(joining):
            job.started = now if job.started is None else job.started
            try:
                self._scheduler.join(job, row)
            except Exception as error:
                logger.exception("a text could not join the batch")
                with self._changed:
                    self._queue.extendleft(reversed(joining[index:]))
                self._end(job, error)
                return

    def _report(self, outcome: Outcome) -> None:
        """Updates the counts, ends jobs, and notifies listeners of new chunks."""
        with self._changed:
            self._held -= outcome.rows
            self._backlog -= outcome.steps
        for job in outcome.ended:
            self._end(job, outcome.error)
        for job in outcome.news:
            self._notify(job)

    def _end(self, job: Job, error: Exception | None = None) -> None:
        """Ends a job, and removes its remaining rows from the queue and the batches."""
        if job.ended is not None:
            return
        if error is not None or any(row.finish_reason is None for row in job.unfinished):
            rows, steps = self._scheduler.remove(job)
            with self._changed:
                waiting = [row for owner, row in self._queue if owner is job]
                self._queue = deque(entry for entry in self._queue if entry[0] is not job)
                self._held -= rows + len(waiting)
                self._backlog -= steps + sum(row.steps_left for row in waiting)
        job.error = error
        job.finish(self.clock())
        self._notify(job)

    def _notify(self, job: Job) -> None:
        if job.loop is None:
            job.notify_listener()
        elif job.notify is not None:
            self._outbox.setdefault(job.loop, []).append(job.notify)

    def _flush(self) -> None:
        """Calls the listeners, with one wake-up per event loop."""
        outbox, self._outbox = self._outbox, {}
        for loop, calls in outbox.items():
            wake(loop, calls)
