"""Extracts the text of a PDF in a separate process, because a single page can take hours or all memory.

The process runs this module: the PDF is its standard input, the text its standard output.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO

from app.intake.findings import FileRefusedError

LONGEST_SECONDS = 60.0  # other uploads may have to wait for this one
LARGEST_TEXT = 256 << 20  # bytes
MAX_MEMORY = 2 << 30  # bytes of address space
PIECE = 1 << 16
UNREADABLE, LOCKED, PROTECTED, TOO_LARGE = 1, 3, 4, 5  # exit codes


def pdf_text(content: IO[bytes], name: str) -> Iterator[str]:
    """The text of all pages. Raises FileRefusedError, ImportError, ValueError if the PDF is damaged."""
    import pypdf  # noqa: F401 - raises ImportError if it is not installed

    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as text:
        while piece := content.read(PIECE):
            file.write(piece)
        file.seek(0)
        try:
            done = subprocess.run(  # noqa: S603 - with fixed arguments
                [sys.executable, "-P", "-m", "app.intake.pdf", str(MAX_MEMORY)],
                stdin=file,
                stdout=text,
                stderr=subprocess.PIPE,
                timeout=LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            message = (
                f"{name} is a PDF document that takes longer than {LONGEST_SECONDS:g} s to read: "
                "save it as plain text"
            )
            raise FileRefusedError("slow_document", message, None, name) from None
        if done.returncode:
            raise _refusal(done.returncode, done.stderr.decode(errors="replace"), name)
        text.seek(0)
        yield from codecs.iterdecode(iter(lambda: text.read(PIECE), b""), "utf-8")


def _refusal(code: int, said: str, name: str) -> Exception:
    if code == LOCKED:
        message = f"{name} is a PDF document with a password: save it as plain text"
        return FileRefusedError("locked_document", message, None, name)
    if code == PROTECTED:
        message = f"{name} is a PDF document that is encrypted: save it as plain text"
        return FileRefusedError("locked_document", message, None, name)
    if code != UNREADABLE:  # a resource limit
        limits = f"{MAX_MEMORY >> 20:,} MB of memory, or {LARGEST_TEXT >> 20} MB of text"
        message = f"{name} is a PDF document that takes more than {limits}: save it as plain text"
        return FileRefusedError("large_document", message, None, name)
    return ValueError((said.strip().splitlines() or ["it is damaged"])[-1])


def _limit(memory: int) -> None:
    import resource

    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, LARGEST_TEXT),
        (resource.RLIMIT_CPU, int(LONGEST_SECONDS)),  # in case the caller has ended
    ):
        with contextlib.suppress(ValueError, OSError):  # not every system has these limits
            resource.setrlimit(limit, (value, value))


def main() -> int:
    """Writes the text of the PDF on standard input to standard output; returns the exit code."""
    _limit(int(sys.argv[1]))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        return _write()
    except MemoryError:
        return TOO_LARGE
    except Exception as error:  # a parser of damaged files may raise anything
        print(f"{error}"[:500] or type(error).__name__, file=sys.stderr)
        return UNREADABLE


def _write() -> int:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    try:
        reader = PdfReader(sys.stdin.buffer)
        if reader.is_encrypted and not reader.decrypt(""):
            return LOCKED
        for page in reader.pages:
            if text := page.extract_text().strip("\n"):
                sys.stdout.buffer.write(f"{text}\n\n".encode("utf-8", "replace"))
        sys.stdout.buffer.flush()
    except DependencyError:  # the encryption needs another library
        return PROTECTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
