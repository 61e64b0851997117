"""A cache for results that many requests need at nearly the same time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Recent(Generic[Result]):
    """A thread-safe cache of the `size` most recently used results, by name. Each is valid for `seconds`."""

    def __init__(self, seconds: float, size: int) -> None:
        self.seconds, self._size = seconds, size
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, Result]] = OrderedDict()

    def get(self, name: str, make: Callable[[], Result]) -> Result:
        """The cached result, or that of `make`, whose exceptions are passed on."""
        with self._lock:
            made_at, result = self._known.get(name, (0.0, None))
            if result is None or time.monotonic() - made_at > self.seconds:
                result = make()
                self._known[name] = (time.monotonic(), result)
            self._known.move_to_end(name)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
            return result
