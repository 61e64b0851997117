"""Generation for many requests at once: one thread, one batch a model, rows joining and leaving as they come.

A request is a `Job`. It is admitted or refused when it is submitted, before any work; what is admitted holds
its place until its work has really ended. Rows wait in one queue, first come, first served. The thread
advances every model's batch by one block in turn; between two blocks it takes out who is cancelled or late
and lets in who waits. A model here is its decoder: a job stays with the one it was submitted with, so new
weights never reach a text that has begun.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from app.errors import DeadlineError, DrainingError, OverloadedError
from app.jobs import Chunk, Job, wake
from model.generation import Batch, Decoder, Generation

BLOCK_SECONDS = 0.002  # how long others wait, at most, for a look at who joins and who leaves
LONGEST_BLOCK = 256  # characters
FIRST_BLOCK = 4  # characters: a stream's first ones should not wait
LOOK_SECONDS = 0.05  # between two looks for jobs past their deadline
UNKNOWN_WAIT = 1.0  # seconds; advice to come back before any rate has been measured

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stats:
    """A look at the engine.

    Attributes:
        running, waiting: rows.
        backlog: characters that the admitted rows have still to read or write.
        characters: read or written by rows since the start.
        rate: characters a second while busy, over about the last two seconds of work; 0 before any.
        blocks: turns of a batch since the start.
        models: batches with rows.
    """

    running: int
    waiting: int
    backlog: int
    characters: int
    rate: float
    blocks: int
    models: int


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
        self.max_rows, self.max_queue, self.clock = max_rows, max_queue, clock
        self._changed = threading.Condition()
        # under the lock: whoever submits, cancels or stops writes them
        self._queue: deque[tuple[Job, Generation]] = deque()
        self._cancelled: list[Job] = []
        self._held = 0  # rows admitted and not yet ended
        self._backlog = 0
        self._stop_at: float | None = None  # set: nothing new is admitted
        # the thread's own
        self._batches: dict[Decoder, Batch] = {}
        self._jobs: dict[Generation, Job] = {}  # of running rows
        self._newest: Decoder | None = None
        self._outbox: dict[asyncio.AbstractEventLoop, list[Callable[[], object]]] = {}
        self._look_at = 0.0
        self._characters = self._blocks = 0
        self._recent_characters = self._recent_seconds = 0.0
        self._tick_seconds: dict[Decoder, float] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread; an engine starts once."""
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
        steps = sum(row.steps_left for row in job.unfinished)
        with self._changed:
            self._admit(len(job.unfinished))
            job.submitted = self.clock()
            job.deadline = None if job.seconds is None else job.submitted + job.seconds
            for row in job.unfinished:
                row.watched |= job.streamed
                self._queue.append((job, row))
            self._held += len(job.unfinished)
            self._backlog += steps
            if job.unfinished:
                self._changed.notify()
                return
        job.finish(job.submitted)  # there was nothing to read or write
        job.tell()

    def cancel(self, job: Job) -> None:
        """Ends a job within a block. Safe in any thread; does nothing to a job that has ended."""
        with self._changed:
            if job.submitted is not None and job.ended is None:
                self._cancelled.append(job)

    async def run(self, job: Job) -> list[Generation]:
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
        return job.generations

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
        running = len(self._jobs)
        return Stats(
            running=running,
            waiting=max(0, self._held - running),
            backlog=self._backlog,
            characters=self._characters,
            rate=self._rate(),
            blocks=self._blocks,
            models=sum(bool(batch.rows) for batch in list(self._batches.values())),
        )

    def _rate(self) -> float:
        return self._recent_characters / self._recent_seconds if self._recent_seconds else 0.0

    def _admit(self, rows: int) -> None:
        if self._stop_at is not None:
            raise DrainingError("the server is stopping; ask another, or again in a moment")
        room = self.max_rows + self.max_queue
        if self._held and self._held + rows > room:  # alone, even a job of more rows than there is room for
            rate = self._rate()
            wait = self._backlog / rate if rate else UNKNOWN_WAIT
            raise OverloadedError(
                f"{self._held} of {room} places are taken and {rows} more are asked for; "
                f"come back in about {wait:.1f} s",
                wait,
            )

    # everything below runs in the engine's thread

    def _run(self) -> None:
        with threadpool_limits(1, "blas"):  # more threads cost more than they give at these sizes
            try:
                while self._await_work():
                    self._turn()
            except Exception:
                logger.exception("the engine failed and admits nothing any more")
                self.drain(0)
            for job in self._all_jobs():
                self._end(job, DrainingError("the server stopped before the text was finished"))
            self._flush()

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
        if self.clock() >= self._look_at:
            self._drop_late()
        if self._queue and len(self._jobs) < self.max_rows:
            self._let_in()
        for batch in list(self._batches.values()):
            if batch.rows:
                self._advance(batch)
            elif batch.decoder is not self._newest:  # the newest one's stays: the next request needs it
                del self._batches[batch.decoder]
                self._tick_seconds.pop(batch.decoder, None)
        self._flush()

    def _all_jobs(self) -> list[Job]:
        with self._changed:
            waiting = [job for job, _ in self._queue]
        return list(dict.fromkeys([*self._jobs.values(), *waiting]))

    def _drop_late(self) -> None:
        now = self.clock()
        self._look_at = now + LOOK_SECONDS
        for job in self._all_jobs():
            if job.deadline is not None and now >= job.deadline:
                self._end(job, DeadlineError(f"the text was not finished within {job.seconds:g} s"))

    def _let_in(self) -> None:
        """Rows join in order while there are places; one whose model's batch is full is passed."""
        joining: list[tuple[Job, Generation]] = []
        passed: list[tuple[Job, Generation]] = []
        free = {decoder: batch.free for decoder, batch in self._batches.items()}
        with self._changed:
            while self._queue and len(self._jobs) + len(joining) < self.max_rows:
                job, row = self._queue.popleft()
                room = free.get(job.decoder, job.decoder.widest)
                (joining if room else passed).append((job, row))
                free[job.decoder] = max(0, room - 1)
            self._queue.extendleft(reversed(passed))
            for job, row in joining:
                self._jobs[row] = job
        now = self.clock()
        for job, row in joining:
            if job.ended is None:
                self._join(job, row, now)

    def _join(self, job: Job, row: Generation, now: float) -> None:
        if job.started is None:
            job.started = now
        self._newest = job.decoder
        if job.decoder not in self._batches:
            self._batches[job.decoder] = Batch(job.decoder)
        try:
            self._batches[job.decoder].join(row)
        except Exception as error:
            logger.exception("a row could not join")
            self._end(job, error)

    def _advance(self, batch: Batch) -> None:
        """One block of one batch, and the news of it."""
        rows, ticks = list(batch.rows), batch.ticks
        left = sum(row.steps_left for row in rows)
        began = time.perf_counter()
        try:
            ended = batch.advance(self._block(batch))
        except Exception as error:
            logger.exception("a batch failed")
            for job in dict.fromkeys(self._jobs[row] for row in rows):
                self._end(job, error)
            return
        seconds, ticks = time.perf_counter() - began, batch.ticks - ticks
        self._tick_seconds[batch.decoder] = seconds / ticks
        self._measure(ticks * len(rows), seconds)
        jobs = dict.fromkeys(self._jobs[row] for row in rows if row.watched or row.finish_reason is not None)
        for row in ended:
            del self._jobs[row]
        with self._changed:
            self._held -= len(ended)
            self._backlog -= left - sum(row.steps_left for row in batch.rows)
        for job in jobs:
            if all(row.finish_reason is not None for row in job.unfinished):
                self._end(job)
            elif job.streamed and job.collect():
                self._tell(job)

    def _block(self, batch: Batch) -> int:
        """Characters of the next block: as many as fit BLOCK_SECONDS, fewer for a stream's first ones."""
        seconds = self._tick_seconds.get(batch.decoder)
        block = FIRST_BLOCK if seconds is None else max(1, min(LONGEST_BLOCK, int(BLOCK_SECONDS / seconds)))
        for row in batch.rows:
            to_first = len(row.prompt) - 1 - row.read + FIRST_BLOCK
            if row.watched and 0 < to_first < block:
                block = to_first
        return block

    def _measure(self, characters: int, seconds: float) -> None:
        keep = 0.5**seconds  # what was a second ago counts half
        self._recent_characters = self._recent_characters * keep + characters
        self._recent_seconds = self._recent_seconds * keep + seconds
        self._characters += characters
        self._blocks += 1

    def _end(self, job: Job, error: Exception | None = None) -> None:
        """Ends a job, and takes out what is left of it, wherever it is."""
        if job.ended is not None:
            return
        rows = [row for row in job.unfinished if row.finish_reason is None]
        batch = self._batches.get(job.decoder)
        if rows:
            with self._changed:
                self._queue = deque(entry for entry in self._queue if entry[0] is not job)
                self._held -= len(rows)
                self._backlog -= sum(row.steps_left for row in rows)
        for row in rows:
            if self._jobs.pop(row, None) and batch and row in batch.rows:
                batch.leave(row)
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
