"""Long computations in a helper process, because they would delay all requests of the server process.

A helper starts with its first task, runs one task at a time, and ends with the server. A task runs once for
all callers and has a time limit; its result is cached, also for the other processes of the server
(`Results`).
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

LOOK_SECONDS = 0.05  # interval of attempts to take a lock that another process holds

Result = TypeVar("Result")
Key = tuple[str, ...]


class Helper:
    """One helper process, for one event loop.

    Args:
        what: name of its tasks in messages, such as `gradient check`.
        seconds: maximum duration of a task without its wait, after which the helper is killed.
        nice: niceness of the helper.
        waiting: maximum number of tasks that wait or run; more are refused with OverloadedError.
        cached: maximum number of cached results; the least recently used are dropped first.
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
        """The result of `work(*arguments)` in the helper, cached by `key`.

        `work` and its arguments are pickled, so it must be a function of a module.
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
            # a client that disconnects must not cancel the task for others
            found: Result = await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            # if the caller was cancelled too, its own cancellation must not be lost
            if task.cancelled() and not (caller and caller.cancelling()):
                raise DrainingError("the server is stopping; try again in a moment") from None
            raise
        return found

    def stop(self) -> None:
        """Cancel the running and waiting tasks; their callers get DrainingError."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Cancel all tasks and end the process."""
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
        async with self._turn:  # one at a time, so that killing the helper affects no other task
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
            task.exception()  # retrieved, so that asyncio does not log it if no caller is left


class Results:
    """The results of the helpers of several processes, as files in a private directory.

    Several keys share a lock file. The system releases the locks of a killed process.

    Args:
        most: maximum number of results; the oldest are deleted.
        encode: converts a result to bytes, or returns None for one that is not shared.
        decode: the inverse of `encode`.
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
        """Hold the lock of the key, so that only one process computes its result."""
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
        """The result of the key, or None."""
        try:
            return self._decode((self._folder / self._name(key)).read_bytes())
        except FileNotFoundError:
            return None

    def keep(self, key: Key, result: Any) -> None:
        """Store a result while the key is held; does nothing if there is no space."""
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
    """In the helper: ignore Ctrl-C, lower the priority, and exit when the server ends or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(nice)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _call(work: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[Result | None, str | None]:
    """In the helper: the result, or the error as text, because not every error can be pickled."""
    try:
        return work(*arguments), None
    except (CharloomError, OSError) as error:
        return None, str(error)
