"""A request's work in the engine: the rows it wants written, and how the waiting request is notified."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from model.generation import Decoder, Row

logger = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """What one choice of a streamed job has written since the last chunk.

    Attributes:
        choice: index in `Job.rows`.
        start: place of the text's first character in the choice's text; its ids and log-probabilities stand
            at the same places of `Row.ids` and `Row.logprobs_of`.
        text: nothing that could still turn out to begin a stop string.
        finish_reason: None until the choice's last chunk.
    """

    choice: int
    start: int
    text: str
    finish_reason: str | None


class Job:
    """Rows to be written with one decoder: the choices of one request.

    Attributes:
        deadline: when the engine gives it up, by the engine's clock; None is never.
        streamed: whether chunks are wanted before the end.
        error: why it failed, after its end; None if it did not. A cancelled job has none, and rows without a
            finish_reason.
        submitted, started, first, ended: times of the engine's clock, None until then. It starts when its
            first row gets a place; `first` is when a stream's first characters were there.
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
        """How long it waited for its first row's place."""
        return (self.started or self.submitted or 0.0) - (self.submitted or 0.0)

    def listen(self, notify: Callable[[], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Calls `notify` at the end and whenever a stream has chunks: in `loop`, or the engine's thread."""
        self.notify, self.loop = notify, loop

    def tell(self) -> None:
        """Calls the listener."""
        if self.notify is not None:
            if self.loop is None:
                self.notify()
            else:
                wake(self.loop, [self.notify])

    def finish(self, now: float) -> None:
        """Marks the end, after the last chunks."""
        if self.streamed:
            self.collect(now)
        self.ended = now

    def collect(self, now: float) -> bool:
        """Notes what can be released; whether there is anything. For the engine's thread."""
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
        """The chunks since the last call, at most one a choice."""
        merged: dict[int, Chunk] = {}
        while self._chunks:
            chunk = self._chunks.popleft()
            before = merged.get(chunk.choice)
            if before is not None:
                chunk = chunk._replace(start=before.start, text=before.text + chunk.text)
            merged[chunk.choice] = chunk
        return list(merged.values())


def wake(loop: asyncio.AbstractEventLoop, calls: Sequence[Callable[[], object]]) -> None:
    """Makes the calls in `loop`, all in one of its turns. Safe in any thread."""
    try:
        loop.call_soon_threadsafe(_call_all, calls)
    except RuntimeError:  # the loop is closed: nobody is left to be told
        logger.debug("an event loop closed before its jobs ended")


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()
