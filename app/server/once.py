"""Answers that are computed once for all clients that request them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any


class Once:
    """A cache of bytes by key, for one event loop, which keeps the `most` recently used.

    Clients that request a key while it is being computed wait for the same task, which continues if they
    leave.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: OrderedDict[str, asyncio.Task[bytes]] = OrderedDict()

    async def get(self, key: str, make: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """The result of `make`, cached. Raises what `make` raises; the next call then tries again."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(make())
            task.add_done_callback(lambda ended: self._forget_failed(key, ended))
        self._tasks.move_to_end(key)
        while len(self._tasks) > self._most:
            self._tasks.popitem(last=False)
        return await asyncio.shield(task)

    def _forget_failed(self, key: str, task: asyncio.Task[bytes]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._tasks.get(key) is task:
            del self._tasks[key]
