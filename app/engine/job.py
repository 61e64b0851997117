"""The work of one request in the engine: its rows, and how the request is notified of progress."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from model.generation import Decoder, Row

logger = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """The text that one choice of a streamed job has generated since the last chunk.

    Attributes:
        choice: index in `Job.rows`.
        start: position of `text` in the choice's text, and of its ids and log-probabilities in `Row.ids` and
            `Row.logprobs_of`.
        text: without an end that may be the start of a stop string.
        finish_reason: None until the choice's last chunk.
    """

    choice: int
    start: int
    text: str
    finish_reason: str | None


class Job:
    """The rows of one request, generated with one decoder.

    Attributes:
        seconds: maximum time from admission to the end; None for no limit.
        deadline: when the engine ends it, by the engine's clock; None for never.
        streamed: whether to produce chunks before the end.
        error: why it failed; None if it did not. A cancelled job has no error, but rows without a
            finish_reason.
        submitted, started, first, ended: times of the engine's clock; None until then. A job starts when its
            first row joins a batch; `first` is the time of a stream's first chunk.
    """

    def __init__(
        self,
        decoder: Decoder,
        rows: Sequence[Row],
        seconds: float | None = None,
        streamed: bool = False,
    ) -> None:
        self.decoder = decoder
        self.rows = list(rows)
        self.seconds = seconds
        self.streamed = streamed
        self.unfinished = [row for row in self.rows if row.finish_reason is None]
        self.deadline: float | None = None
        self.error: Exception | None = None
        self.submitted: float | None = None
        self.started: float | None = None
        self.first: float | None = None
        self.ended: float | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.notify: Callable[[], object] | None = None
        self._chunks: deque[Chunk] = deque()
        self._announced = [False] * len(self.rows)

    @property
    def queue_seconds(self) -> float:
        """The seconds from admission until the first row joined a batch."""
        return (self.started or self.submitted or 0.0) - (self.submitted or 0.0)

    def listen(self, notify: Callable[[], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Sets a listener for the end and for new chunks. It is called in `loop`, or else by the engine."""
        self.notify, self.loop = notify, loop

    def notify_listener(self) -> None:
        if self.notify is not None:
            if self.loop is None:
                self.notify()
            else:
                wake(self.loop, [self.notify])

    def finish(self, now: float) -> None:
        """Marks the job as ended, after collecting the last chunks."""
        if self.streamed:
            self.collect(now)
        self.ended = now

    def collect(self, now: float) -> bool:
        """Collects the released text into chunks; returns whether there is any. For the engine's thread."""
        found = False
        for choice, row in enumerate(self.rows):
            if self._announced[choice]:
                continue
            start, text = row.released, row.release()
            if text or row.finish_reason is not None:
                self._chunks.append(Chunk(choice, start, text, row.finish_reason))
                self._announced[choice] = row.finish_reason is not None
                found = True
        if found and self.first is None:
            self.first = now
        return found

    def take(self) -> list[Chunk]:
        """Returns the chunks since the last call, at most one for each choice."""
        merged: dict[int, Chunk] = {}
        while self._chunks:
            chunk = self._chunks.popleft()
            before = merged.get(chunk.choice)
            if before is not None:
                chunk = chunk._replace(start=before.start, text=before.text + chunk.text)
            merged[chunk.choice] = chunk
        return list(merged.values())


def wake(loop: asyncio.AbstractEventLoop, calls: Sequence[Callable[[], object]]) -> None:
    """Makes the calls in `loop`, in a single callback. Thread-safe."""
    try:
        loop.call_soon_threadsafe(_call_all, calls)
    except RuntimeError:  # the loop is closed, so its requests have ended
        logger.debug("an event loop closed before its jobs ended")


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()
