"""Long computations in a helper process, which would otherwise hold up every request of this one.

A helper is started with its first task, does one at a time, and ends with the server. A task is done once for
all who ask for it, is bounded in time, and its result is kept. Where several processes are one
server, it is done once for all of them (`Results`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from app.errors import DeadlineError, DrainingError, RenderError
from app.slots import Slots
from app.store.files import write_atomic
from model.errors import CharloomError

LOOK_SECONDS = 0.05  # between two looks whether another process has made a result

Result = TypeVar("Result")
Key = tuple[str, ...]


class Helper:
    """One helper process, for one event loop.

    Args:
        what: one of its tasks, for messages: `gradient check`.
        seconds: longest a task may take, waiting not included; a helper that takes longer is ended.
        nice: how far the helper yields to other processes.
        waiting: tasks that may wait or run; others are refused with OverloadedError.
        cached: results that are kept, the least recently used are dropped first.
        shared: the results that several processes share.
    """

    def __init__(
        self,
        what: str,
        seconds: float,
        *,
        nice: int,
        waiting: int,
        cached: int,
        shared: Results | None = None,
    ) -> None:
        self.what, self.seconds, self.cached = what, seconds, cached
        self.slots = Slots(waiting, f"{what}s are waiting")
        self._nice, self._took = nice, 1.0
        self._turn = asyncio.Lock()
        self._shared = shared
        self._pool: ProcessPoolExecutor | None = None
        self._results: OrderedDict[Key, Any] = OrderedDict()
        self._tasks: dict[Key, asyncio.Task[Any]] = {}

    async def result(self, key: Key, work: Callable[..., Result], *arguments: Any) -> Result:
        """What `work(*arguments)` returns in the helper; equal keys mean equal results.

        `work` is a function of a module; both it and its arguments are pickled.
        Raises OverloadedError, DeadlineError, DrainingError (`stop`), or RenderError with the reason.
        """
        if key in self._results:
            self._results.move_to_end(key)
            kept: Result = self._results[key]
            return kept
        task = self._tasks.get(key)
        if task is None:
            self.slots.take(self._took)
            task = self._tasks[key] = asyncio.create_task(self._run(key, work, arguments))
            task.add_done_callback(lambda done: self._done(key, done))
        try:
            # a client that goes away must not end the task for the others who wait for it
            found: Result = await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            # where both end at the same time, the caller's own end must not be lost
            if task.cancelled() and not (caller and caller.cancelling()):
                raise DrainingError("the server is stopping; try again in a moment") from None
            raise
        return found

    def stop(self) -> None:
        """End the task in progress and those that wait; their callers get DrainingError."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Stop, and end the process."""
        self.stop()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._end()

    async def _run(self, key: Key, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._shared is None:
            result = await self._work(work, arguments)
        else:
            async with self._shared.held(key):
                result = self._shared.get(key)
                if result is None:
                    result = await self._work(work, arguments)
                    await asyncio.to_thread(self._shared.keep, key, result)
        self._results[key] = result
        while len(self._results) > self.cached:
            self._results.popitem(last=False)
        return result

    async def _work(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        async with self._turn:  # one at a time, so that ending the helper ends no other task
            began = time.monotonic()
            result, reason = await self._in_helper(work, arguments)
            self._took = time.monotonic() - began
        if reason is not None:
            raise RenderError(f"the {self.what} failed: {reason}")
        return result

    async def _in_helper(
        self, work: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> tuple[Any, str | None]:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, spawn, initializer=_prepare, initargs=(self._nice,))
        loop, seconds = asyncio.get_running_loop(), self.seconds
        try:
            async with asyncio.timeout(seconds):
                return await loop.run_in_executor(self._pool, _call, work, arguments)
        except TimeoutError:
            self._end()
            raise DeadlineError(f"the {self.what} took longer than {seconds:g} s") from None
        except BrokenProcessPool:
            self._end()
            raise RenderError(f"the process of the {self.what} ended; try again") from None
        except asyncio.CancelledError:
            self._end()
            raise

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)

    def _done(self, key: Key, task: asyncio.Task[Any]) -> None:
        del self._tasks[key]
        self.slots.give_back()
        if not task.cancelled():
            task.exception()  # seen: nobody may be waiting for it any more


class Results:
    """What the helpers of several processes have made, as files of a private folder.

    A lock is shared by some keys, and the system frees those of a killed process.

    Args:
        most: how many are kept, the newest.
        encode: a result as bytes, or None for one that is not shared; `decode` is the way back.
    """

    def __init__(
        self,
        folder: Path,
        most: int,
        encode: Callable[[Any], bytes | None],
        decode: Callable[[bytes], Any],
    ) -> None:
        self._folder, self._most = folder, most
        self._encode, self._decode = encode, decode

    @asynccontextmanager
    async def held(self, key: Key) -> AsyncIterator[None]:
        """Only one of the processes is in this block for the same key."""
        lock = FileLock(self._folder / f"{self._name(key)[:2]}.lock", timeout=0)
        while True:
            try:
                lock.acquire()
                break
            except Timeout:
                await asyncio.sleep(LOOK_SECONDS)
        try:
            yield
        finally:
            lock.release()

    def get(self, key: Key) -> Any:
        """None if there is none."""
        try:
            return self._decode((self._folder / self._name(key)).read_bytes())
        except FileNotFoundError:
            return None

    def keep(self, key: Key, result: Any) -> None:
        """For the one that holds the key. Where there is no room nothing is kept."""
        encoded = self._encode(result)
        if encoded is None:
            return
        with suppress(OSError):
            write_atomic(self._folder / self._name(key), encoded)
            made = [path for path in self._folder.iterdir() if len(path.name) == len(self._name(key))]
            for path in sorted(made, key=lambda path: path.stat().st_mtime)[: -self._most]:
                path.unlink(missing_ok=True)

    @staticmethod
    def _name(key: Key) -> str:
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def _prepare(nice: int) -> None:
    """In the helper: leave signals to the server, yield to it, and end when it does, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(nice)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _call(work: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[Result | None, str | None]:
    """In the helper: the result, or why there is none. As text: not every error can be pickled."""
    try:
        return work(*arguments), None
    except (CharloomError, OSError) as error:
        return None, str(error)
