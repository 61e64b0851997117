"""When to read all the runs of a store again, without asking its disk for each of them twice a second.

Who adds a run, asks something of one, or begins or ends its training changes the store's folder
(`RunStore.announce`), so that a look at that one folder tells whether there is news. What nobody announces
(a run put there by hand) is found by reading all runs now and then.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

IDLE_RATE = 100.0  # looks at a file or folder of the store a second, on average, while nothing is announced
BUSY_RATE = 1000.0  # and at most, however much is
FEW = 24  # looks that are always taken: asked for a few times a second, they stay below the idle rate
SETTLED_SECONDS = 1.0  # after which an announcement shows in the folder's time, or in a cache of a network


class Scan:
    """Whether it is time to read all runs again; asking takes one look at the folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._seen: int | None = None
        self._changed_at = self._read_at = float("-inf")

    def due(self, looks: int) -> bool:
        """Whether to read all runs now, which takes so many looks. The caller then does."""
        now, changed = time.monotonic(), self._time()
        if changed != self._seen:
            self._seen, self._changed_at = changed, now
        since = now - self._read_at
        news = self._read_at < self._changed_at + SETTLED_SECONDS
        if looks > FEW and since < looks / (BUSY_RATE if news else IDLE_RATE):
            return False
        self._read_at = now
        return True

    def forget(self) -> None:
        """Make a reading due now."""
        self._read_at = float("-inf")

    def _time(self) -> int:
        try:
            return os.stat(self._root).st_mtime_ns
        except OSError:
            return 0
