"""Signal handling: orderly stops, with a time limit for workers."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_GOODBYE = 1.5  # seconds from a stop signal to exiting without another checkpoint

logger = logging.getLogger(__name__)


@contextmanager
def on_signals(react: Callable[[int], object], numbers: tuple[int, ...] = STOPS) -> Iterator[None]:
    """Call `react` with the signal's number inside the block; restore the previous handlers afterwards.

    An ignored hangup (`nohup`) stays ignored. Does nothing outside the main thread, because Python delivers
    signals only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in numbers}
    if previous.get(signal.SIGHUP) == signal.SIG_IGN:
        del previous[signal.SIGHUP]
    for number in previous:
        signal.signal(number, lambda number, frame: react(number))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interrupt(number: int) -> None:
    """A reaction to any signal: raise KeyboardInterrupt."""
    raise KeyboardInterrupt


class Stop:
    """Whether this process was asked to stop: by a signal, or by the end of the process that started it."""

    def __init__(self, parent: int | None = None) -> None:
        self.requested = False
        self._parent = parent

    def __call__(self) -> bool:
        return self.requested or (self._parent is not None and os.getppid() != self._parent)

    def request(self, number: int) -> None:
        """A reaction: the first signal requests an orderly stop, which may take LONGEST_GOODBYE."""
        if not self.requested:
            self.requested = True
            signal.setitimer(signal.ITIMER_REAL, LONGEST_GOODBYE)


class NoTimeLeftError(BaseException):
    """The orderly stop took too long. Not an Exception, so that no `except Exception` catches it."""


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Let signals request a stop inside the block; if it does not end soon after, leave it immediately.

    This loses only the updates since the last checkpoint. For the main thread only.
    """
    try:
        with on_signals(stop.request), on_signals(_leave, (signal.SIGALRM,)):
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except NoTimeLeftError:
        logger.warning("exiting without another checkpoint: the last update took too long")


def _leave(number: int) -> None:
    raise NoTimeLeftError
