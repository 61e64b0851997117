"""Rows in batches, one batch a model, advanced a block at a time. For one thread; knows no locks.

A model here is its decoder: a row stays with the one its job came with, so new weights never reach a text
that has begun.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from app.engine.job import Job
from model.generation import Batch, Decoder, Row

BLOCK_SECONDS = 0.001  # how long a batch runs between two looks at who joins and who leaves
CHUNK_SECONDS = 0.02  # least time between two chunks of a stream: nobody reads faster, and each costs
LONGEST_BLOCK = 256  # characters
FIRST_BLOCK = 4  # characters: a stream's first ones should not wait

logger = logging.getLogger(__name__)


class _Running(NamedTuple):
    """A row in a batch; it will have been fed its last character when the batch has made `end` ticks."""

    job: Job
    end: int


@dataclass
class Outcome:
    """What a block of a batch has come to.

    Attributes:
        rows: rows that ended.
        steps: characters fed, and those that a row which ended early will not be fed.
        ended: jobs of which no row is left to write.
        news: streamed jobs that have chunks.
        error: why the batch failed; `ended` are then all of its jobs, and their rows are still to be removed.
    """

    rows: int = 0
    steps: int = 0
    ended: list[Job] = field(default_factory=list)
    news: list[Job] = field(default_factory=list)
    error: Exception | None = None


class Scheduler:
    """Advances up to `max_rows` rows, over all models.

    Attributes:
        characters: fed to rows so far; `blocks`: of all batches.
    """

    def __init__(self, max_rows: int, clock: Callable[[], float]) -> None:
        self.max_rows, self.clock = max_rows, clock
        self.characters = self.blocks = 0
        self._batches: dict[Decoder, Batch] = {}
        self._running: dict[Row, _Running] = {}
        self._streams: dict[Job, float] = {}  # with the time from which they may have their next chunk
        self._newest: Decoder | None = None
        self._tick_seconds: dict[Decoder, float] = {}
        self._recent_characters = self._recent_seconds = self._recent_ticks = 0.0

    @property
    def running(self) -> int:
        """Rows in batches. Safe to ask in any thread, as is `rate`."""
        return len(self._running)

    @property
    def rate(self) -> float:
        """Characters a second while busy, mostly over the last second of work; 0 before any."""
        return self._recent_characters / self._recent_seconds if self._recent_seconds else 0.0

    @property
    def tick_seconds(self) -> float:
        """What a character of a text takes, mostly over the last second of work; 0 before any."""
        return self._recent_seconds / self._recent_ticks if self._recent_ticks else 0.0

    @property
    def models(self) -> int:
        """Models with rows in batches. Safe to ask in any thread."""
        return len({running.job.decoder for running in list(self._running.values())})

    @property
    def jobs(self) -> dict[Job, None]:
        """Jobs with rows in batches."""
        return dict.fromkeys(running.job for running in self._running.values())

    def take(self, queue: deque[tuple[Job, Row]]) -> list[tuple[Job, Row]]:
        """Takes the rows that can join from the queue, in order; passes one whose model's batch is full."""
        joining: list[tuple[Job, Row]] = []
        passed: list[tuple[Job, Row]] = []
        free = {decoder: batch.free for decoder, batch in self._batches.items()}
        while queue and self.running + len(joining) < self.max_rows:
            job, row = queue.popleft()
            places = free.get(job.decoder, job.decoder.widest)
            (joining if places else passed).append((job, row))
            free[job.decoder] = max(0, places - 1)
        queue.extendleft(reversed(passed))
        return joining

    def join(self, job: Job, row: Row) -> None:
        """Adds a row. Whatever it raises, the row is not in."""
        if job.decoder not in self._batches:
            self._batches[job.decoder] = Batch(job.decoder)
        batch, self._newest = self._batches[job.decoder], job.decoder
        batch.join(row)
        self._running[row] = _Running(job, batch.ticks + row.steps_left)
        if job.streamed:
            self._streams.setdefault(job, self.clock())

    def remove(self, job: Job) -> tuple[int, int]:
        """Takes out what is running of a job; how many rows that were, and characters not fed."""
        self._streams.pop(job, None)
        rows = [row for row in job.unfinished if row in self._running]
        if not rows:
            return 0, 0
        batch = self._batches[job.decoder]
        for row in rows:
            batch.leave(row)
        self._forget_idle()
        return len(rows), sum(self._running.pop(row).end - batch.ticks for row in rows)

    def turn(self) -> Iterator[Outcome]:
        """One block of every batch."""
        for batch in list(self._batches.values()):
            if batch.rows:
                yield self._advance(batch)
        self._forget_idle()

    def _forget_idle(self) -> None:
        """Lets go of weights that nobody uses, but for the newest ones: the next request needs them."""
        for decoder, batch in list(self._batches.items()):
            if not batch.rows and decoder is not self._newest:
                del self._batches[decoder]
                self._tick_seconds.pop(decoder, None)

    def _advance(self, batch: Batch) -> Outcome:
        rows, ticks = batch.rows, batch.ticks
        began = time.perf_counter()
        try:
            ended = batch.advance(self._block(batch))
        except Exception as error:
            logger.exception("a batch failed")
            return Outcome(ended=list(dict.fromkeys(self._running[row].job for row in rows)), error=error)
        seconds, ticks = time.perf_counter() - began, batch.ticks - ticks
        self._tick_seconds[batch.decoder] = seconds / ticks
        self._measure(ticks, ticks * len(rows), seconds)
        done = [self._running.pop(row) for row in ended]
        # a row that a stop string ended has saved some; one that ended within the block was run on in vain
        outcome = Outcome(len(ended), ticks * len(rows) + sum(end - batch.ticks for _, end in done))
        for job in dict.fromkeys(job for job, _ in done):
            if all(row.finish_reason is not None for row in job.unfinished):
                self._streams.pop(job, None)
                outcome.ended.append(job)
        outcome.news.extend(self._with_chunks(batch.decoder))
        return outcome

    def _with_chunks(self, decoder: Decoder) -> Iterator[Job]:
        if self._streams:
            now = self.clock()
            for job, due in self._streams.items():
                if job.decoder is decoder and now >= due and job.collect(now):
                    self._streams[job] = now + CHUNK_SECONDS
                    yield job

    def _block(self, batch: Batch) -> int:
        """Characters of the next block: as many as fit BLOCK_SECONDS, fewer for a stream's first ones."""
        seconds = self._tick_seconds.get(batch.decoder)
        block = FIRST_BLOCK if seconds is None else max(1, min(LONGEST_BLOCK, int(BLOCK_SECONDS / seconds)))
        for job in self._streams:
            for row in job.unfinished if job.decoder is batch.decoder else ():
                to_first = len(row.prompt) - 1 - row.read + FIRST_BLOCK
                if 0 < to_first < block:
                    block = to_first
        return block

    def _measure(self, ticks: int, characters: int, seconds: float) -> None:
        keep = 0.5**seconds  # what was a second ago counts half
        self._recent_characters = self._recent_characters * keep + characters
        self._recent_seconds = self._recent_seconds * keep + seconds
        self._recent_ticks = self._recent_ticks * keep + ticks
        self.characters += characters
        self.blocks += 1
