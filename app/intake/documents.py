"""Extracts the text of documents: Word, OpenDocument, EPUB, HTML, RTF, PDF, notebooks and subtitles.

Most formats need the libraries of the extra `charloom[documents]`. Each reader yields the text in pieces;
errors of its library become FileRefusedError.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any
from urllib.parse import unquote

from app.intake.encodings import decoded
from app.intake.findings import FileRefusedError, Finding, printable_name
from app.intake.markup import declared_encoding, document_pieces, encrypted, html_pieces, spine
from app.intake.pdf import pdf_text
from app.intake.pieces import joined
from app.intake.subtitles import subtitle_text
from app.intake.zips import is_of_disk, open_zip, refusing_damage
from app.store.files import Source

LARGEST_WHOLE = 16 << 20  # bytes of a file that is read at once
LARGEST_MEMBER = 256 << 20  # bytes of a file in a zipped document, unpacked
PIECE = 1 << 16
HEAD = 2048  # bytes of a page that are searched for its encoding
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
WORD_TEXT = re.compile(r"word/document\d*\.xml")
MANIFEST, ENCRYPTION = "META-INF/manifest.xml", "META-INF/encryption.xml"


def document_text(source: Source, kind: str, encoding: str, findings: list[Finding]) -> Iterator[str]:
    """The text of a document of the given kind, with \\n line endings. Raises FileRefusedError."""
    name = printable_name(source.name)
    with _library_faults(name, NAMES[kind]):
        pieces = joined(READERS[kind](source, encoding, findings))
    while True:
        # only around `next`: an error raised by the caller at `yield` is not the document's fault
        with _library_faults(name, NAMES[kind]):
            piece = next(pieces, None)
        if piece is None:
            return
        if piece:
            yield _whole_characters(piece.replace("\r\n", "\n").replace("\r", "\n"))


def _whole_characters(text: str) -> str:
    """Joins surrogate pairs, which RTF uses, and replaces lone surrogates with U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
    except Exception as error:  # a parser of damaged files may raise anything
        if is_of_disk(error):
            raise
        raise _damaged(name, kind, error) from None


def _damaged(name: str, kind: str, error: Exception) -> FileRefusedError:
    said = error.args[0] if isinstance(error, KeyError) and error.args else error  # str() would add quotes
    reason = (
        "it is nested too deeply" if isinstance(error, RecursionError) else printable_name(str(said))[:150]
    )
    reason = reason or type(error).__name__
    return FileRefusedError("bad_document", f"{name} is {kind} that cannot be read: {reason}", None, name)


def _whole(source: Source) -> bytes:
    data = source.content.read(LARGEST_WHOLE + 1)
    if len(data) > LARGEST_WHOLE:
        name = printable_name(source.name)
        message = f"{name} must have at most {LARGEST_WHOLE >> 20} MB; it is larger: save it as plain text"
        raise FileRefusedError("large_document", message, None, name)
    return data


def _member(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """A file in a zipped document, in pieces."""
    with refusing_damage(printable_name(name), "damaged inside the document"), archive.open(name) as content:
        size = 0
        while piece := content.read(PIECE):
            size += len(piece)
            if size > LARGEST_MEMBER:
                limit = f"{LARGEST_MEMBER >> 20} MB unpacked; this one is larger"
                message = f"{printable_name(name)} must have at most {limit}: save the document as plain text"
                raise FileRefusedError("large_document", message, None, printable_name(name))
            yield piece


def _docx(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    with open_zip(source.content) as archive:
        main = next(name for name in archive.namelist() if WORD_TEXT.fullmatch(name))
        yield from document_pieces(_member(archive, main))


def _odt(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    with open_zip(source.content) as archive:
        if MANIFEST in archive.namelist() and b":encryption-data" in b"".join(_member(archive, MANIFEST)):
            raise _locked(source, "an OpenDocument text with a password")
        yield from document_pieces(_member(archive, "content.xml"))


def _locked(source: Source, what: str) -> FileRefusedError:
    name = printable_name(source.name)
    return FileRefusedError("locked_document", f"{name} is {what}: save it as plain text", None, name)


def _epub(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    with open_zip(source.content) as archive:
        package, chapters = spine(lambda name: b"".join(_member(archive, name)))
        folder = posixpath.dirname(package)
        locked = (
            encrypted(b"".join(_member(archive, ENCRYPTION))) if ENCRYPTION in archive.namelist() else set()
        )
        for number, chapter in enumerate(chapters):
            if number:
                yield "\n"
            path = posixpath.normpath(posixpath.join(folder, unquote(chapter.partition("#")[0])))
            if path in locked:
                raise _locked(source, "an EPUB book with copy protection")
            pieces = _member(archive, path)
            head = next(pieces, b"")
            yield from html_pieces(chain((head,), pieces), declared_encoding(head) or "utf-8")


def _html(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    head = source.content.read(HEAD)
    source.content.seek(0)
    if encoding == "utf-8":
        encoding = declared_encoding(head) or encoding
    yield from html_pieces(text.encode() for text in decoded(source, encoding, findings))


def _rtf(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    from striprtf.striprtf import rtf_to_text

    text: str = rtf_to_text(  # type: ignore[no-untyped-call]
        _whole(source).decode("latin-1"), errors="replace"
    )
    yield text


def _pdf(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    name, empty = printable_name(source.name), True
    for piece in pdf_text(source.content, name):
        empty = False
        yield piece
    if empty:
        message = f"{name} is a PDF document without text: its pages are pictures"
        raise FileRefusedError("no_text", message, None, name)


def _srt(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    yield from subtitle_text(decoded(source, encoding, findings))


def _ipynb(source: Source, encoding: str, findings: list[Finding]) -> Iterator[str]:
    """The text and code of the cells, without outputs, separated by empty lines."""
    for number, cell in enumerate(_cells(json.loads(_whole(source)))):
        content = cell.get("source", cell.get("input", "")) if isinstance(cell, dict) else None
        if isinstance(content, list) and all(isinstance(line, str) for line in content):
            content = "".join(content)
        if not isinstance(content, str):
            raise ValueError(f"cell {number + 1} has no text")
        yield ("\n" if number else "") + content.rstrip("\n") + "\n"


def _cells(notebook: Any) -> list[Any]:
    """The cells of a notebook; before version 4 of the format they were in worksheets."""
    try:
        lists: list[Any] = [sheet["cells"] for sheet in notebook.get("worksheets", [notebook])]
    except (AttributeError, KeyError, TypeError):
        lists = []
    if not lists or not all(isinstance(cells, list) for cells in lists):
        raise ValueError("it has no list of cells")
    return [cell for cells in lists for cell in cells]


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
    """The file itself, or a temporary copy if its content is not seekable, as that of a file in a zip."""
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
