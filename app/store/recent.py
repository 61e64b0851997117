"""What is worked out once for all who ask for it at nearly the same time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Recent(Generic[Result]):
    """Results by name, each good for `seconds`; the `most` that were asked for last. For several threads."""

    def __init__(self, seconds: float, most: int) -> None:
        self.seconds, self._most = seconds, most
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, Result]] = OrderedDict()

    def get(self, name: str, make: Callable[[], Result]) -> Result:
        """What `make` gives, or gave less than `seconds` ago. Raises what it raises."""
        with self._lock:
            made_at, result = self._known.get(name, (0.0, None))
            if result is None or time.monotonic() - made_at > self.seconds:
                result = make()
                self._known[name] = (time.monotonic(), result)
            self._known.move_to_end(name)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            return result
