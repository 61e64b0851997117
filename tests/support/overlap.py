"""How many calls of a function are made at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Overlap:
    """Calls `work` after `seconds`, so that calls overlap if they can.

    Attributes:
        most: the largest number of calls that were made at the same time.
    """

    def __init__(self, work: Callable[..., Any], seconds: float) -> None:
        self.work, self.seconds = work, seconds
        self.most = self._now = 0

    def __call__(self, *arguments: Any) -> Any:
        self._now += 1
        self.most = max(self.most, self._now)
        time.sleep(self.seconds)
        self._now -= 1
        return self.work(*arguments)
