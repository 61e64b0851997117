"""The text of a PDF, read in a process of its own: one page can take hours, or all memory.

The process is this module as a program: a PDF is its standard input, the text its standard output.
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

LONGEST_SECONDS = 60.0  # others who upload may wait meanwhile
LARGEST_TEXT = 256 << 20  # bytes
MOST_MEMORY = 2 << 30  # bytes of address space
PIECE = 1 << 16
UNREADABLE, LOCKED, PROTECTED, TOO_LARGE = 1, 3, 4, 5  # exit codes


def pdf_text(content: IO[bytes], name: str) -> Iterator[str]:
    """The text of all pages. Raises FileRefusedError, ImportError, or ValueError with what is damaged."""
    import pypdf  # noqa: F401 - that it is installed

    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as text:
        while piece := content.read(PIECE):
            file.write(piece)
        file.seek(0)
        try:
            done = subprocess.run(  # noqa: S603 - with fixed arguments
                [sys.executable, "-P", "-m", "app.intake.pdf", str(MOST_MEMORY)],
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
    if code != UNREADABLE:  # ended by a limit of the system
        limits = f"{MOST_MEMORY >> 20:,} MB of memory, or {LARGEST_TEXT >> 20} MB of text"
        message = f"{name} is a PDF document that takes more than {limits}: save it as plain text"
        return FileRefusedError("large_document", message, None, name)
    return ValueError((said.strip().splitlines() or ["it is damaged"])[-1])


def _limit(memory: int) -> None:
    import resource

    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, LARGEST_TEXT),
        (resource.RLIMIT_CPU, int(LONGEST_SECONDS)),  # if the caller is gone
    ):
        with contextlib.suppress(ValueError, OSError):  # of systems that have no such limit
            resource.setrlimit(limit, (most, most))


def main() -> int:
    """Write the text of the PDF on standard input; the exit code says what is wrong with it."""
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
    except DependencyError:  # a kind of encryption that needs another library
        return PROTECTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
