"""A text that someone brings: written to disk as UTF-8 while it is read, counted, and looked at.

Nothing here holds more than a piece of it. What makes a text unusable is a refusal, what is merely worth
knowing a warning; both are findings, with the place where they begin.
"""

from __future__ import annotations

import codecs
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from app.errors import TooLargeError, UnusableTextError
from app.intake.findings import Finding, _Look
from app.store.files import Source, flush
from app.store.run import Text
from model.text import OTHER_MARKS, UTF8_MARK

PIECE = 1 << 20  # bytes read at once
ENCODINGS = (
    *("utf-8", "utf-16", "utf-32", "ascii", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp437"),
    *(f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))),
    *("koi8-r", "koi8-u", "mac-roman", "shift_jis", "euc_jp", "gb18030", "gbk", "big5", "euc_kr"),
)
MOST_FILES = 10_000  # of a zip
ARCHIVE_MARKS = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass
class Looked:
    """A text on disk, and what was found; `text` is what its run's record tells of it."""

    path: Path
    text: Text
    distinct: int
    findings: list[Finding]


def write_text(sources: Iterable[Source], encoding: str, target: Path, limit: int) -> Looked:
    """Write the sources, zips unpacked, one after the other into `target`, at most `limit` bytes of UTF-8.

    Raises UnusableTextError with all findings, TooLargeError, or OSError.
    """
    encoding = known_encoding(encoding)
    look = _Look()
    names: list[str] = []
    with target.open("wb") as out:
        for source in unpacked(sources):
            if len(names) >= MOST_FILES:
                raise TooLargeError(f"more than {MOST_FILES:,} files: join them into fewer")
            if names and not look.at_line_start:
                look.add("\n", out, limit)
            names.append(source.name)
            try:
                for piece in decoded(source, encoding):
                    look.add(piece, out, limit)
            except _UndecodableError as error:
                look.findings.append(error.finding)
    flush(target)
    findings = look.all_findings()
    if any(finding.level == "refusal" for finding in findings):
        raise UnusableTextError(findings[0].message, [asdict(finding) for finding in findings])
    name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return Looked(target, Text(name[:200], look.digest.hexdigest(), look.characters), look.distinct, findings)


def known_encoding(name: str) -> str:
    """The codec of that name, if it is one of those that texts are in. Raises UnusableTextError."""
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        found = ""
    if found not in ENCODINGS:
        message = f"encoding must be a known one, such as utf-8, latin-1 or cp1252. Given: {name[:40]!r}"
        raise UnusableTextError(message, [asdict(Finding("refusal", "unknown_encoding", message))])
    return found


def unpacked(sources: Iterable[Source]) -> Iterator[Source]:
    """The sources, each zip replaced by the files in it, in the order of their names.

    Raises UnusableTextError for a zip that is damaged or locked.
    """
    for source in sources:
        mark = source.content.read(4)
        source.content.seek(0)
        if mark not in ARCHIVE_MARKS:
            yield source
            continue
        try:
            with zipfile.ZipFile(source.content) as archive:
                for member in sorted(archive.infolist(), key=lambda member: member.filename):
                    name = member.filename
                    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
                    if not member.is_dir() and not hidden:
                        with archive.open(member) as content:
                            yield Source(name, content)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            message = f"{source.name} is a zip that cannot be unpacked: {error}"
            raise UnusableTextError(message, [asdict(Finding("refusal", "bad_zip", message))]) from None


class _UndecodableError(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def decoded(source: Source, encoding: str) -> Iterator[str]:
    """The text of a file piece by piece, without byte order mark, every line end a line feed."""
    inner = codecs.getincrementaldecoder(encoding)("strict")
    decoder = io.IncrementalNewlineDecoder(inner, translate=True)
    base = 0
    piece = source.content.read(PIECE)
    if encoding == "utf-8":
        for mark, other in OTHER_MARKS.items():
            if piece.startswith(mark):
                message = f"{source.name} is in {other}, by its byte order mark: add encoding={other.lower()}"
                raise _UndecodableError(Finding("refusal", "not_utf8", message, 0, source.name))
        if piece.startswith(UTF8_MARK):
            piece, base = piece[len(UTF8_MARK) :], len(UTF8_MARK)
    while True:
        pending = len(inner.getstate()[0])
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            position = base - pending + error.start
            message = (
                f"{source.name} is not {encoding}: byte 0x{error.object[error.start]:02x} cannot stand at "
                f"byte {position:,}; declare what it is in, for example with encoding=latin-1"
            )
            code = "not_utf8" if encoding == "utf-8" else "wrong_encoding"
            raise _UndecodableError(Finding("refusal", code, message, position, source.name)) from None
        if text:
            yield text
        if not piece:
            return
        base += len(piece)
        piece = source.content.read(PIECE)
