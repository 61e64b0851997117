"""Limits on how many of something are in progress at the same time, such as open streams.

The processes of one server share the slots. Each shared slot is a byte of a file, held by a lock on it, so
the system frees the slots of a killed process.
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
    """Slots shared by processes: `limit` numbers, each held by at most one process that opened the file."""

    def __init__(self, file: Path, limit: int) -> None:
        """Raises OSError. Open each file only once: closing any handle of it releases all its locks."""
        self._file, self.limit = file.open("ab"), limit
        self._held: set[int] = set()
        self._free = 0  # where the search starts

    def take(self) -> bool:
        """Take a free slot; False if there is none."""
        for place in (*range(self._free, self.limit), *range(self._free)):
            if place not in self._held and self._lock(place):
                self._held.add(place)
                return True
        return False

    def give_back(self) -> None:
        """Release one held slot."""
        self._free = self._held.pop()
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._free)

    def _lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True


class Slots:
    """At most `limit` at the same time; `what` describes them in messages, such as `streams are open`.

    `shared` is the file of the slots if other processes use them too; `taken` counts those of this process.
    """

    def __init__(self, limit: int, what: str, shared: Path | None = None) -> None:
        self.limit, self.what = limit, what
        self.taken = 0
        self._places = Places(shared, limit) if shared else None

    def take(self, seconds: float) -> None:
        """Take a slot. Raises OverloadedError, which advises retrying after `seconds`."""
        if self.taken >= self.limit or (self._places is not None and not self._places.take()):
            raise OverloadedError(f"{self.limit} of {self.limit} {self.what}; try again later", seconds)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1
        if self._places is not None:
            self._places.give_back()


class UploadSlots(Slots):
    """Limits uploads; no single client may take more than three quarters of a process's slots."""

    def __init__(self, limit: int, shared: Path | None = None) -> None:
        super().__init__(limit, "uploads are in progress", shared)
        self.most = limit - limit // 4
        self._clients: Counter[str] = Counter()

    @contextmanager
    def taken_by(self, client: str, seconds: float) -> Iterator[None]:
        """Hold a slot during the block. Raises OverloadedError, which advises retrying after `seconds`."""
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
    """Limits the clients that watch runs, separately from text streams, so that neither crowds out the other.

    `closing` is set when the server stops, because a watched run may not end before that.
    """

    def __init__(self, limit: int, shared: Path | None = None) -> None:
        super().__init__(limit, "clients are watching runs", shared)
        self.closing = False


class Downloads(Slots):
    """Limits how many large answers are being sent, and how long each may take."""

    def __init__(self, limit: int, what: str, shared: Path | None = None) -> None:
        super().__init__(limit, what, shared)
        self._open: set[asyncio.Timeout] = set()
        self._latest = math.inf

    @asynccontextmanager
    async def sending(self, seconds: float) -> AsyncIterator[None]:
        """Send an answer in the block, cut off after `seconds`; gives back the slot that was taken."""
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
        """The server is stopping: answers in progress have `seconds` to finish."""
        self._latest = asyncio.get_running_loop().time() + seconds
        for timeout in self._open:
            timeout.reschedule(min(self._latest, timeout.when() or self._latest))
