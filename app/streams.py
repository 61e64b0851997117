"""The standard streams of a process, which may have been started without them."""

from __future__ import annotations

import os
import sys


def have_standard_streams() -> None:
    """Opens the null device for each standard stream that was closed (`charloom serve 2>&-`).

    A socket or a file of the store would get its number otherwise, and what is written to it.
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
