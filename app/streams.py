"""The standard streams of a process: make sure that they are open and that printing to them is safe."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

# control characters except line feed and tab, marks that change the text direction, and lone surrogates
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def prepare_standard_streams() -> None:
    """Make it safe to print: all streams are open, and no character can raise an error.

    Warnings that are logged before logging is configured are made safe to print too.
    """
    _open_closed_streams()
    _replace_what_cannot_be_encoded()
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(VisibleFormatter())


def _open_closed_streams() -> None:
    """Open the null device for each standard stream that was closed (`charloom serve 2>&-`).

    Otherwise a socket or a file of the store would get its number, and whatever is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _replace_what_cannot_be_encoded() -> None:
    """Print a question mark for a character that the terminal's encoding lacks.

    An error in the display must never end the work.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


class _Unfailing:
    """A stream whose writers get no error if it cannot be written: a closed pipe, a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        """Send buffered and later output to the null device."""
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def unfailing_output() -> Iterator[None]:
    """Inside the block, output that cannot be written is lost instead of raising an error."""
    with contextlib.redirect_stdout(cast(TextIO, _Unfailing(sys.stdout))):
        yield


def visible(text: str, json: bool = False) -> str:
    """`text` with control characters escaped (`\\x1b`, or `\\u001b` for JSON), for a terminal or a log.

    A file name, a request's path or a sample may hold sequences that clear a terminal or set its clipboard.
    """
    if json:
        return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class VisibleFormatter(logging.Formatter):
    """Formats log lines with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
