"""Schedules rows in one batch per model, advanced one block at a time. Not thread-safe.

A model is identified by its decoder. A row stays with the decoder of its job, so a new checkpoint never
affects a text that has begun.
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

BLOCK_SECONDS = 0.001  # target duration of a block; rows join and leave between blocks
CHUNK_SECONDS = 0.02  # minimum time between two chunks of a stream, which limits their overhead
LONGEST_BLOCK = 256  # characters
FIRST_BLOCK = 4  # characters of a stream's first block, so that the first chunk comes early

logger = logging.getLogger(__name__)


class _Running(NamedTuple):
    """A row in a batch, which has been fed all its characters at tick `end` of the batch."""

    job: Job
    end: int


@dataclass
class Outcome:
    """The result of one block of a batch.

    Attributes:
        rows: number of rows that ended.
        steps: number of characters by which the backlog has shrunk: those fed, and those saved by stop
            strings.
        ended: jobs without unfinished rows.
        news: streamed jobs with new chunks.
        error: why the batch failed. `ended` has all its jobs then, and the caller has to remove their rows.
    """

    rows: int = 0
    steps: int = 0
    ended: list[Job] = field(default_factory=list)
    news: list[Job] = field(default_factory=list)
    error: Exception | None = None


class Scheduler:
    """Advances up to `max_rows` rows, over all models.

    Attributes:
        characters: number of characters fed to rows so far.
        blocks: number of blocks of all batches so far.
    """

    def __init__(self, max_rows: int, clock: Callable[[], float]) -> None:
        self.max_rows, self.clock = max_rows, clock
        self.characters = self.blocks = 0
        self._batches: dict[Decoder, Batch] = {}
        self._running: dict[Row, _Running] = {}
        self._streams: dict[Job, float] = {}  # with the earliest time of their next chunk
        self._newest: Decoder | None = None
        self._tick_seconds: dict[Decoder, float] = {}
        self._recent_characters = self._recent_seconds = self._recent_ticks = 0.0

    @property
    def running(self) -> int:
        """Number of rows in batches. Thread-safe, like `rate`."""
        return len(self._running)

    @property
    def rate(self) -> float:
        """Characters per second of work, mostly of the last second; 0 before any work."""
        return self._recent_characters / self._recent_seconds if self._recent_seconds else 0.0

    @property
    def tick_seconds(self) -> float:
        """Seconds per character of a text, mostly of the last second of work; 0 before any work."""
        return self._recent_seconds / self._recent_ticks if self._recent_ticks else 0.0

    @property
    def models(self) -> int:
        """Number of models with rows in batches. Thread-safe."""
        return len({running.job.decoder for running in list(self._running.values())})

    @property
    def jobs(self) -> dict[Job, None]:
        """Jobs with rows in batches."""
        return dict.fromkeys(running.job for running in self._running.values())

    def take(self, queue: deque[tuple[Job, Row]]) -> list[tuple[Job, Row]]:
        """Removes the rows that can join from the queue, in order, skipping those whose batch is full."""
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
        """Adds a row to the batch of its model. If it raises, the row was not added."""
        if job.decoder not in self._batches:
            self._batches[job.decoder] = Batch(job.decoder)
        batch, self._newest = self._batches[job.decoder], job.decoder
        batch.join(row)
        self._running[row] = _Running(job, batch.ticks + row.steps_left)
        if job.streamed:
            self._streams.setdefault(job, self.clock())

    def remove(self, job: Job) -> tuple[int, int]:
        """Removes a job's rows from their batch; returns the number of rows, and of characters not fed."""
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
        """Advances every batch by one block."""
        for batch in list(self._batches.values()):
            if batch.rows:
                yield self._advance(batch)
        self._forget_idle()

    def _forget_idle(self) -> None:
        """Releases the decoders without rows, except the newest, which the next request will need."""
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
        # end - ticks: characters saved by a stop string, or (negative) fed in vain after the end of the row
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
        """The characters of the next block: for BLOCK_SECONDS, but fewer before a stream's first chunk."""
        seconds = self._tick_seconds.get(batch.decoder)
        block = FIRST_BLOCK if seconds is None else max(1, min(LONGEST_BLOCK, int(BLOCK_SECONDS / seconds)))
        for job in self._streams:
            for row in job.unfinished if job.decoder is batch.decoder else ():
                to_first = len(row.prompt) - 1 - row.read + FIRST_BLOCK
                if 0 < to_first < block:
                    block = to_first
        return block

    def _measure(self, ticks: int, characters: int, seconds: float) -> None:
        keep = 0.5**seconds  # exponential decay with a half-life of one second of work
        self._recent_characters = self._recent_characters * keep + characters
        self._recent_seconds = self._recent_seconds * keep + seconds
        self._recent_ticks = self._recent_ticks * keep + ticks
        self.characters += characters
        self.blocks += 1
