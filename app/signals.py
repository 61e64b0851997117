"""How the processes react to SIGTERM and SIGINT.

A server waits for its open connections before it tells the application that it stops; by then a long text, or
a stream, would have kept it waiting. So the application listens to the signals itself, and passes them on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

LONGEST_GOODBYE = 1.5  # seconds from SIGTERM to leaving without another checkpoint

logger = logging.getLogger(__name__)


@contextmanager
def on_stop_signals(drain: Callable[[], object]) -> Iterator[None]:
    """Within the block SIGTERM and SIGINT call `drain` in the running event loop, then what they did before.

    Does nothing outside the main thread, where Python delivers no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(drain)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Stop:
    """Whether this process was asked to stop: by a signal, or by the end of the process that started it."""

    def __init__(self, parent: int | None = None) -> None:
        self.requested = False
        self._parent = parent

    def __call__(self) -> bool:
        return self.requested or (self._parent is not None and os.getppid() != self._parent)


class NoTimeLeftError(BaseException):
    """The orderly stop took too long. Not an Exception: it must pass through all that handles those."""


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT request a stop in this block; if it has not ended soon after, it is left at once.

    Leaving at once loses nothing but the updates since the last checkpoint. Only for the main thread.
    """

    def request(number: int, frame: FrameType | None) -> None:
        if not stop.requested:
            stop.requested = True
            signal.setitimer(signal.ITIMER_REAL, LONGEST_GOODBYE)

    def leave(number: int, frame: FrameType | None) -> None:
        raise NoTimeLeftError

    handlers = {signal.SIGTERM: request, signal.SIGINT: request, signal.SIGALRM: leave}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    except NoTimeLeftError:
        logger.warning("left without another checkpoint: the last update took too long")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM end this block, in order and without a traceback."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
