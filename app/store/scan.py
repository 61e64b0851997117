"""Decides when to read all runs of a store again, so that polling does not overload its disk.

A process that adds a run, requests something for one, or begins or ends its training changes the modification
time of the store's directory (`RunStore.announce`), so one stat call shows whether there is news. Changes
that are not announced, such as a run copied there by hand, are found by reading all runs from time to time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

IDLE_RATE = 100.0  # average number of stat calls per second while nothing is announced
BUSY_RATE = 1000.0  # maximum while there are announcements
FEW = 24  # stat calls that are always allowed: a few times a second they stay below the idle rate
SETTLED_SECONDS = 1.0  # until a change is visible in the directory's time, or in the cache of a network disk


class Scan:
    """Decides whether to read all runs again, with one stat call of the directory `root`."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._seen: int | None = None
        self._changed_at = self._read_at = float("-inf")

    def due(self, looks: int) -> bool:
        """Whether to read all runs now, which takes `looks` stat calls. If True, the caller must do it."""
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
        """Makes the next call of `due` return True."""
        self._read_at = float("-inf")

    def _time(self) -> int:
        try:
            return os.stat(self._root).st_mtime_ns
        except OSError:
            return 0
