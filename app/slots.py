"""A bound on how many of something there are at once, such as open streams.

Where several processes are one server they share the places. A place is a byte of a file that the process has
locked, so the system frees the places of a process that is killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from app.errors import OverloadedError

logger = logging.getLogger(__name__)


class Places:
    """The numbers below `limit`, each held by at most one process of those that open the same file."""

    def __init__(self, file: Path, limit: int) -> None:
        """Raises OSError. Only once for each file: to close any handle of it frees all that are held."""
        self._file, self.limit = file.open("ab"), limit
        self._held: set[int] = set()
        self._free = 0  # where to look first

    def take(self) -> bool:
        """Whether there was a free one, which is now held."""
        for place in (*range(self._free, self.limit), *range(self._free)):
            if place not in self._held and self._lock(place):
                self._held.add(place)
                return True
        return False

    def give_back(self) -> None:
        """Free one that is held."""
        self._free = self._held.pop()
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._free)

    def _lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True


class Slots:
    """At most `limit` at once; `what` names them for people: `streams are open`.

    `shared` is the file of the places where other processes take some of them too; `taken` are this one's.
    """

    def __init__(self, limit: int, what: str, shared: Path | None = None) -> None:
        self.limit, self.what = limit, what
        self.taken = 0
        self._places = Places(shared, limit) if shared else None

    def take(self, seconds: float) -> None:
        """Raises OverloadedError; `seconds` is the advice when to come back."""
        if self.taken >= self.limit or (self._places is not None and not self._places.take()):
            raise OverloadedError(f"{self.limit} of {self.limit} {self.what}; try again later", seconds)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1
        if self._places is not None:
            self._places.give_back()


class UploadSlots(Slots):
    """Bounds the uploads; a fourth of the places of a process is for other clients than the busiest."""

    def __init__(self, limit: int, shared: Path | None = None) -> None:
        super().__init__(limit, "uploads are in progress", shared)
        self.most = limit - limit // 4
        self._clients: Counter[str] = Counter()

    @contextmanager
    def taken_by(self, client: str, seconds: float) -> Iterator[None]:
        """A place during the block. Raises OverloadedError; `seconds` is the advice when to come back."""
        if self._clients[client] >= self.most:
            raise OverloadedError(
                f"{self.most} of {self.limit} {self.what} for this client, which is its limit; try again "
                f"later",
                seconds,
            )
        self.take(seconds)
        self._clients[client] += 1
        try:
            yield
        finally:
            self.give_back()
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]


class Watchers(Slots):
    """Bounds how many clients follow runs; not those that wait for texts, so neither takes the other's place.

    `closing` is set when the server stops: a run that is followed may not end before.
    """

    def __init__(self, limit: int, shared: Path | None = None) -> None:
        super().__init__(limit, "clients are watching runs", shared)
        self.closing = False


class Downloads(Slots):
    """Bounds how many large answers are being sent, and how long each may take."""

    def __init__(self, limit: int, what: str, shared: Path | None = None) -> None:
        super().__init__(limit, what, shared)
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
            logger.warning("an answer was cut off: the client did not read it in time")
        finally:
            self.give_back()

    def end_within(self, seconds: float) -> None:
        """The server stops: what is being sent, or still being made, has so long to end."""
        self._latest = asyncio.get_running_loop().time() + seconds
        for timeout in self._open:
            timeout.reschedule(min(self._latest, timeout.when() or self._latest))
