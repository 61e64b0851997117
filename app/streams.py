"""The standard streams of a process: make sure that they are open and that printing to them is safe."""

from __future__ import annotations

import io
import os
import re
import sys

# control characters except line feed and tab, marks that change the text direction, and lone surrogates
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def prepare_standard_streams() -> None:
    """Make it safe to print: all streams are open, and no character can raise an error."""
    _open_closed_streams()
    _replace_what_cannot_be_encoded()


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


def visible(text: str) -> str:
    """`text` with control characters escaped (`\\x1b`), for a terminal or a log.

    A file name, a request's path or a sample may hold sequences that clear a terminal or set its clipboard.
    """
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
