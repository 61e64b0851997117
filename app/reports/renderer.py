"""Draws pictures in a helper process, as drawing would hold up every request in this one; caches them.

The helper is started with the first picture, draws one at a time, and ends with the server.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

from app.errors import DeadlineError, OverloadedError, RenderError

CACHED = 64
WAITING = 16  # pictures that may wait for the helper
NICE = 5


class Renderer:
    """Runs drawing functions elsewhere. For one event loop.

    Args:
        seconds: longest a picture may take; a helper that takes longer is ended.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._pool: ProcessPoolExecutor | None = None
        self._pictures: OrderedDict[tuple[str, ...], bytes] = OrderedDict()
        self._drawing: dict[tuple[str, ...], asyncio.Task[bytes]] = {}

    async def picture(self, key: tuple[str, ...], function: str, *arguments: Any) -> bytes:
        """The bytes that `app.reports.plots.<function>(*arguments)` returns; `key` tells equal pictures.

        Raises OverloadedError, DeadlineError, RenderError.
        """
        if key in self._pictures:
            self._pictures.move_to_end(key)
            return self._pictures[key]
        task = self._drawing.get(key)
        if task is None:
            if len(self._drawing) >= WAITING:
                raise OverloadedError(f"{WAITING} pictures are waiting to be drawn", retry_after=2.0)
            task = self._drawing[key] = asyncio.create_task(self._draw(key, function, arguments))
            task.add_done_callback(lambda done: self._drawn(key, done))
        # a client that goes away must not take the picture from the others who wait for it
        return await asyncio.shield(task)

    def close(self) -> None:
        """End the helper."""
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)

    async def _draw(self, key: tuple[str, ...], function: str, arguments: tuple[Any, ...]) -> bytes:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_prepare)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.seconds):
                picture = await loop.run_in_executor(self._pool, _call, function, arguments)
        except TimeoutError:
            self.close()
            raise DeadlineError(f"the picture took longer than {self.seconds:g} s") from None
        except BrokenProcessPool:
            self.close()
            raise RenderError("the process that draws pictures ended; try again") from None
        self._pictures[key] = picture
        while len(self._pictures) > CACHED:
            self._pictures.popitem(last=False)
        return picture

    def _drawn(self, key: tuple[str, ...], task: asyncio.Task[bytes]) -> None:
        del self._drawing[key]
        if not task.cancelled():
            task.exception()  # seen: nobody may be waiting for it any more


def _prepare() -> None:
    """In the helper: leave signals to the server, give way to it, and end when it does, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _call(function: str, arguments: tuple[Any, ...]) -> bytes:
    """In the helper. The import is here so that the server itself never loads matplotlib."""
    from app.reports import plots

    draw: Callable[..., bytes] = getattr(plots, function)
    return draw(*arguments)
