"""Generation for many requests at once: one thread, rows joining and leaving its batches as they come.

A request is a `Job`. It is admitted or refused when it is submitted, before any work; what is admitted holds
its places until its work has really ended. Rows wait in one queue, first come, first served. The thread
advances every model's batch by one block in turn; between two blocks it takes out who is cancelled or late
and lets in who waits.
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

LOOK_SECONDS = 0.05  # between two looks for jobs past their deadline
SWITCH_SECONDS = 0.0005
UNKNOWN_WAIT = 1.0  # seconds; advice to come back before any rate has been measured

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stats:
    """A look at the engine.

    Attributes:
        running, waiting: rows; `models`: with running rows.
        backlog: characters that the admitted rows have still to read or write.
        characters: read or written by rows since the start.
        rate: characters a second while busy, mostly over the last second of work; 0 before any.
        blocks: turns of a batch since the start.
    """

    running: int
    waiting: int
    models: int
    backlog: int
    characters: int
    rate: float
    blocks: int


class Engine:
    """Writes texts in one thread of its own.

    Args:
        max_rows: rows written at the same time, over all models.
        max_queue: rows that may wait for a place.
        clock: seconds, ever growing.
    """

    def __init__(
        self, max_rows: int = 64, max_queue: int = 256, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.room = max_rows + max_queue
        self.clock = clock
        # guarded by the lock: written by submit, cancel and stop
        self._changed = threading.Condition()
        self._queue: deque[tuple[Job, Row]] = deque()
        self._cancelled: list[Job] = []
        self._held = 0  # rows admitted and not yet ended
        self._backlog = 0
        self._stop_at: float | None = None  # set: nothing new is admitted
        # the thread's own
        self._scheduler = Scheduler(max_rows, clock)
        self._outbox: dict[asyncio.AbstractEventLoop, list[Callable[[], object]]] = {}
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._blas: threadpool_limits | None = None

    def start(self) -> None:
        """Starts the thread, once. Until it stops, BLAS has one thread: more cost more than they give."""
        # each product lets the event loop run, and by default could get its turn back only after 5 ms
        sys.setswitchinterval(SWITCH_SECONDS)
        self._blas = threadpool_limits(1, "blas")
        self._thread.start()

    def drain(self, seconds: float) -> None:
        """Admits nothing from now on; what has not ended after `seconds` fails with DrainingError."""
        with self._changed:
            until = self.clock() + seconds
            self._stop_at = until if self._stop_at is None else min(until, self._stop_at)
            self._changed.notify()

    def stop(self, seconds: float = 0.0) -> None:
        """Drains, and waits for the thread's end. Blocks: not for an event loop."""
        self.drain(seconds)
        if self._thread.ident is not None:
            self._thread.join()

    def submit(self, job: Job) -> None:
        """Admits a job, or raises OverloadedError or DrainingError and does nothing. Safe in any thread."""
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
        job.finish(job.submitted)  # there was nothing to read or write
        job.tell()

    def cancel(self, job: Job) -> None:
        """Ends a job within a block. Safe in any thread; does nothing to a job that has ended."""
        if job.submitted is not None and job.ended is None:
            with self._changed:
                self._cancelled.append(job)

    async def run(self, job: Job) -> list[Row]:
        """Waits for a job's end and returns its rows. Cancels the job if the waiting task is cancelled.

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
        """Submits a job at once and returns its chunks as they come, coalesced while nobody takes them.

        Cancels the job if the iterator is closed. Raises as `run` does; what makes it fail later is raised
        by the iterator.
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
                ended = job.ended is not None  # before the chunks are taken: none can follow
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
        """A look from any thread."""
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
        """Whether nothing new is admitted. Safe to ask in any thread."""
        return self._stop_at is not None

    @property
    def full(self) -> bool:
        """Whether not even one text can be admitted. Safe to ask in any thread."""
        return self._held >= self.room and self._stop_at is None

    def overload(self, rows: int = 1) -> OverloadedError:
        """Why so many texts are refused where there is no room for them, with the time to come back after."""
        wait = self._wait()
        return OverloadedError(
            f"{self._held} of {self.room} places are taken and {rows} more are asked for; try again in about "
            f"{wait:.1f} s",
            wait,
        )

    def _wait(self) -> float:
        """Seconds that what has been admitted takes."""
        rate = self._scheduler.rate
        return self._backlog / rate if rate else UNKNOWN_WAIT

    def _admit(self, rows: int, longest: int, seconds: float | None) -> None:
        if self._stop_at is not None:
            raise DrainingError("the server is stopping; try another one, or try again in a moment")
        if self._held and self._held + rows > self.room:  # alone, even a job of more rows is let in
            raise self.overload(rows)
        rate = self._scheduler.rate
        wait = self._wait()
        if rate and seconds is not None and self._held > self._scheduler.running and wait > seconds:
            raise OverloadedError(
                f"the texts already waiting take about {wait:.1f} s, longer than the {seconds:g} s that a "
                f"request "
                f"may take; try again in about {wait - seconds:.1f} s",
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
        """Waits until there is something to do; False when it is time to stop."""
        with self._changed:
            while not self._held and self._stop_at is None:
                self._changed.wait()
            return self._stop_at is None or (self._held > 0 and self.clock() < self._stop_at)

    def _turn(self) -> None:
        """A block of every batch, after a look at who leaves and who joins."""
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
            self._let_in(now)
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

    def _let_in(self, now: float) -> None:
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
        """Frees places and tells who waits for news."""
        with self._changed:
            self._held -= outcome.rows
            self._backlog -= outcome.steps
        for job in outcome.ended:
            self._end(job, outcome.error)
        for job in outcome.news:
            self._tell(job)

    def _end(self, job: Job, error: Exception | None = None) -> None:
        """Ends a job, and takes out what is left of it, wherever it is."""
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
        self._tell(job)

    def _tell(self, job: Job) -> None:
        if job.loop is None:
            job.tell()
        elif job.notify is not None:
            self._outbox.setdefault(job.loop, []).append(job.notify)

    def _flush(self) -> None:
        """Wakes each event loop once, however many of its jobs have news."""
        outbox, self._outbox = self._outbox, {}
        for loop, calls in outbox.items():
            wake(loop, calls)
