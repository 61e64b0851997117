"""The text of documents: Word, OpenDocument, EPUB, HTML, RTF, PDF, notebooks and subtitles.

The libraries for them are the extra `charloom[documents]`. Each reader yields text piece by piece, and turns
whatever its library raises into FileRefusedError.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO
from urllib.parse import unquote

from app.intake.encodings import decoded
from app.intake.findings import FileRefusedError, Finding, printable_name
from app.intake.markup import document_pieces, html_pieces, spine
from app.intake.pieces import joined
from app.intake.zips import DAMAGE, open_zip, refusing_damage
from app.store.files import Source

LARGEST_WHOLE = 16 << 20  # bytes of a file that is read whole
LARGEST_MEMBER = 256 << 20  # bytes of a file in a document, unpacked
LONGEST_SECONDS = 60.0  # that the pages of a PDF may take; others who upload wait meanwhile
PIECE = 1 << 16
NAMES = {
    "docx": "a Word document",
    "odt": "an OpenDocument text",
    "epub": "an EPUB book",
    "html": "an HTML page",
    "rtf": "an RTF document",
    "pdf": "a PDF document",
    "srt": "a file of subtitles",
    "ipynb": "a Jupyter notebook",
}
EXTRA = "pip install 'charloom[documents]'"
TIMES = re.compile(r"(?:\d+:)?\d\d:\d\d[,.]\d{3} --> ")
SUBTITLE_TAG = re.compile(r"</?[a-z][^<>]*>|\{\\[^{}]*\}", re.I)


def document_text(source: Source, kind: str, encoding: str, findings: list[Finding]) -> Iterator[str]:
    """The text of a document of that kind, lines ended by line feeds. Raises FileRefusedError."""
    name = printable_name(source.name)
    with _library_faults(name, NAMES[kind]):
        pieces = joined(READERS[kind](source, encoding, findings))
    while True:
        # around the reading alone: what the caller raises at a piece is not the document's fault
        with _library_faults(name, NAMES[kind]):
            piece = next(pieces, None)
        if piece is None:
            return
        if piece:
            yield piece.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()


@contextmanager
def _library_faults(name: str, kind: str) -> Iterator[None]:
    try:
        yield
    except (FileRefusedError, MemoryError):
        raise
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        message = f"{name} is {kind}: to read it, install {library} ({EXTRA}), or save it as plain text"
        raise FileRefusedError("needs_documents", message, None, name) from None
    except OSError as error:
        if error.errno is not None and not isinstance(error, DAMAGE):
            raise
        raise _damaged(name, kind, error) from None
    except Exception as error:  # a parser of damaged files may raise anything
        raise _damaged(name, kind, error) from None


def _damaged(name: str, kind: str, error: Exception) -> FileRefusedError:
    reason = printable_name(str(error))[:150] or type(error).__name__
    return FileRefusedError("bad_document", f"{name} is {kind} that cannot be read: {reason}", None, name)


def _whole(source: Source) -> bytes:
    data = source.content.read(LARGEST_WHOLE + 1)
    if len(data) > LARGEST_WHOLE:
        name = printable_name(source.name)
        message = f"{name} has more than {LARGEST_WHOLE >> 20} MB: save it as plain text"
        raise FileRefusedError("large_document", message, None, name)
    return data


def _member(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """A file of a zipped document, piece by piece."""
    with refusing_damage(printable_name(name), "damaged in its document"), archive.open(name) as content:
        size = 0
        while piece := content.read(PIECE):
            size += len(piece)
            if size > LARGEST_MEMBER:
                raise FileRefusedError(
                    "large_document", f"{printable_name(name)} is too large", None, printable_name(name)
                )
            yield piece


def _docx(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    with open_zip(source.content) as archive:
        yield from document_pieces(_member(archive, "word/document.xml"))


def _odt(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    with open_zip(source.content) as archive:
        yield from document_pieces(_member(archive, "content.xml"))


def _epub(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    with open_zip(source.content) as archive:
        package, chapters = spine(lambda name: b"".join(_member(archive, name)))
        folder = posixpath.dirname(package)
        for number, chapter in enumerate(chapters):
            if number:
                yield "\n"
            path = posixpath.normpath(posixpath.join(folder, unquote(chapter.partition("#")[0])))
            yield from html_pieces(_member(archive, path))


def _html(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    head = source.content.read(PIECE)
    source.content.seek(0)
    declared = re.search(rb"""charset\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""", head[:2048])
    if declared and encoding == "utf-8":
        yield from html_pieces(iter(lambda: source.content.read(PIECE), b""), declared[1].decode())
    else:
        yield from html_pieces(text.encode() for text in decoded(source, encoding, findings))


def _rtf(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    from striprtf.striprtf import rtf_to_text

    text: str = rtf_to_text(  # type: ignore[no-untyped-call]
        _whole(source).decode("latin-1"), errors="replace"
    )
    yield text


def _pdf(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    from pypdf import PdfReader

    name = printable_name(source.name)
    reader = PdfReader(source.content)
    if reader.is_encrypted and not reader.decrypt(""):
        message = f"{name} is a PDF document with a password: save it as plain text"
        raise FileRefusedError("locked_document", message, None, name)
    empty, end = True, time.monotonic() + LONGEST_SECONDS
    for page in reader.pages:
        if time.monotonic() > end:
            message = f"{name} is a PDF document that takes longer than {LONGEST_SECONDS:g} s to read"
            raise FileRefusedError("slow_document", message, None, name)
        text = page.extract_text().strip("\n")
        if text:
            empty = False
            yield f"{text}\n\n"
    if empty:
        message = f"{name} is a PDF document without text: its pages are pictures"
        raise FileRefusedError("no_text", message, None, name)


def _srt(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    """What is said, without the numbers, times and tags."""
    pieces = decoded(source, encoding, findings)
    waiting: str | None = None  # a line of digits, which is a number if a time follows
    for line in _lines(pieces):
        if TIMES.match(line):
            waiting = None
            continue
        if waiting is not None:
            yield f"{waiting}\n"
        waiting = None
        if line.strip().isdecimal():
            waiting = line
        elif line.strip() and not line.startswith(("WEBVTT", "NOTE")):
            yield SUBTITLE_TAG.sub("", line).strip() + "\n"
    if waiting is not None:
        yield f"{waiting}\n"


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest


def _ipynb(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    """The cells' texts and code, without outputs, an empty line between two cells."""
    notebook = json.loads(_whole(source))
    for number, cell in enumerate(notebook["cells"]):
        content = cell.get("source", "")
        text = content if isinstance(content, str) else "".join(content)
        yield ("\n" if number else "") + text.rstrip("\n") + "\n"


Reader = Callable[[Source, str, list[Finding]], Iterator[str]]
READERS: dict[str, Reader] = {
    "docx": _docx,
    "odt": _odt,
    "epub": _epub,
    "html": _html,
    "rtf": _rtf,
    "pdf": _pdf,
    "srt": _srt,
    "ipynb": _ipynb,
}


@contextmanager
def seekable(source: Source) -> Iterator[Source]:
    """The same file on disk, where its content can only be read on, as that of a file in a zip."""
    if isinstance(source.content, io.IOBase) and source.content.seekable():
        yield source
        return
    with tempfile.TemporaryFile() as copy:
        _copy(source.content, copy)
        copy.seek(0)
        yield Source(source.name, copy)


def _copy(content: IO[bytes], target: IO[bytes]) -> None:
    while piece := content.read(1 << 20):
        target.write(piece)
