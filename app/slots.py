"""A bound on how many of something there are at once, such as open streams."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import OverloadedError

logger = logging.getLogger(__name__)


class Slots:
    """At most `limit` at once; `what` names them for people: `streams are open`."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self.what = limit, what
        self.taken = 0

    def take(self, seconds: float) -> None:
        """Raises OverloadedError; `seconds` is the advice when to come back."""
        if self.taken >= self.limit:
            raise OverloadedError(f"{self.taken} of {self.limit} {self.what}; come back later", seconds)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1


class Watchers(Slots):
    """Bounds how many clients follow runs; not those that wait for texts, so neither takes the other's place.

    `closing` is set when the server stops: a run that is followed may not end before.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit, "watchers follow runs")
        self.closing = False


class Downloads(Slots):
    """Bounds how many large answers are being sent, and how long each may take."""

    def __init__(self, limit: int, what: str) -> None:
        super().__init__(limit, what)
        self._open: set[asyncio.Timeout] = set()
        self._latest = math.inf

    @asynccontextmanager
    async def sending(self, seconds: float) -> AsyncIterator[None]:
        """The block in which an answer is sent, cut after `seconds`; gives back the place that was taken."""
        try:
            until = min(self._latest, asyncio.get_running_loop().time() + seconds)
            async with asyncio.timeout_at(until) as timeout:
                self._open.add(timeout)
                try:
                    yield
                finally:
                    self._open.discard(timeout)
        except TimeoutError:
            logger.warning("an answer was cut: it was not read in time")
        finally:
            self.give_back()

    def end_within(self, seconds: float) -> None:
        """The server stops: what is being sent, or still being made, has so long to end."""
        self._latest = asyncio.get_running_loop().time() + seconds
        for timeout in self._open:
            timeout.reschedule(min(self._latest, timeout.when() or self._latest))
