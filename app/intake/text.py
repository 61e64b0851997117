"""Reads texts: plain files in any encoding, zips of them, and documents.

The command line, HTTP uploads, uploaded files and the default text all use this reader. It writes UTF-8 to
disk while it reads, in bounded memory. A refusal says why a text is unusable, a warning what is unusual about
it; both are findings, with their position.
"""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.errors import TooLargeError
from app.intake.documents import NAMES, document_text, seekable
from app.intake.encodings import decoded, known_encoding
from app.intake.findings import FileRefusedError, Finding, counted, printable_name, unusable
from app.intake.jsonl import example_texts
from app.intake.kinds import kind_of
from app.intake.pieces import joined
from app.intake.scan import TextScan
from app.intake.zips import members
from app.store.files import Source, flush
from app.store.run import Text

LARGEST = 256 * 1024 * 1024  # bytes; far more than a character-level RNN can read on a CPU
LARGEST_COPIED = 1 << 30  # bytes of the text of an existing run, which may have had another limit
PIECE = 1 << 20
MAX_FILES = 10_000  # in a zip
WIDEST = 4  # bytes of a character in UTF-32, the widest encoding
MAX_PICTURES = 256 << 20  # bytes of the parts of zipped documents that are not text
PREVIEW = 60  # characters of a document's text in its warning


@dataclass
class ReadText:
    """A text on disk, its description for the RunSpec, and its findings."""

    path: Path
    text: Text
    distinct: int
    findings: list[Finding]


class Contents(NamedTuple):
    """A text in memory, and its findings, which are all warnings."""

    text: str
    findings: list[Finding]


def read_text(path: Path, encoding: str = "utf-8") -> Contents:
    """The text of one file. Raises UnusableTextError with all findings, TooLargeError, OSError."""
    with tempfile.TemporaryDirectory(prefix="charloom-") as folder, path.open("rb") as file:
        read = write_text([Source(path.name, file)], encoding, Path(folder) / "corpus.txt", LARGEST)
        return Contents(read.path.read_bytes().decode(), read.findings)


def write_text(sources: Iterable[Source], encoding: str, target: Path, limit: int) -> ReadText:
    """Writes the texts of all sources, one after another, into `target`, at most `limit` bytes of UTF-8.

    Raises UnusableTextError with all findings, TooLargeError, OSError.
    """
    encoding = known_encoding(encoding)
    names: list[str] = []
    with target.open("wb") as out:
        scan = TextScan(out, limit)
        try:
            for source in _unpacked(sources, WIDEST * limit + MAX_PICTURES):
                if len(names) >= MAX_FILES:
                    raise TooLargeError(f"more than {MAX_FILES:,} files: join them into fewer")
                if names and not scan.at_line_start:
                    scan.add("\n")
                names.append(printable_name(source.name))
                _add(source, encoding, scan)
        except FileRefusedError as error:  # the rest of a zip cannot be read
            scan.findings.append(error.finding)
    return _read(target, names, scan)


def _read(target: Path, names: list[str], scan: TextScan) -> ReadText:
    flush(target)
    findings = scan.all_findings()
    if any(finding.level == "refusal" for finding in findings):
        raise unusable(findings)
    name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return ReadText(target, Text(name, scan.sha256, scan.characters), scan.distinct, findings)


def copy_text(source: Source, target: Path) -> ReadText:
    """Like `write_text`, for the stored text of a run: always read as UTF-8, whatever its name."""
    with target.open("wb") as out:
        scan = TextScan(out, LARGEST_COPIED)
        for piece in codecs.iterdecode(iter(lambda: source.content.read(PIECE), b""), "utf-8"):
            scan.add(piece)
    return _read(target, [source.name], scan)


def _unpacked(sources: Iterable[Source], limit: int) -> Iterator[Source]:
    """The sources, with each zip replaced by its files, at most `limit` bytes. Raises FileRefusedError."""
    for source in sources:
        if kind_of(source.content, printable_name(source.name)) == "zip":
            yield from members(source, limit)
        else:
            yield source


def _add(source: Source, encoding: str, scan: TextScan) -> None:
    """Adds the text of one file, or a finding if it has none."""
    name = printable_name(source.name)
    try:
        with seekable(source) as file:
            kind = kind_of(file.content, name)
            if kind in NAMES:
                _add_document(file, kind, encoding, scan)
                return
            if kind not in ("text", "jsonl"):
                described = "a zip in a zip: unpack it first" if kind == "zip" else kind
                what, colon, advice = described.partition(":")
                raise FileRefusedError("not_text", f"{name} is {what}, not a text{colon}{advice}", None, name)
            pieces = example_texts(file) if kind == "jsonl" else decoded(file, encoding, scan.findings)
            for piece in joined(pieces):
                scan.add(piece)
    except FileRefusedError as error:
        scan.findings.append(error.finding)


def _add_document(source: Source, kind: str, encoding: str, scan: TextScan) -> None:
    name, before, shown = printable_name(source.name), scan.characters, ""
    for piece in document_text(source, kind, encoding, scan.findings):
        if len(shown) < PREVIEW:
            shown = f"{shown}{piece}"[: 4 * PREVIEW]
        scan.add(piece)
    taken = scan.characters - before
    if not taken:
        raise FileRefusedError("no_text", f"{name} is {NAMES[kind]} without text", None, name)
    begins = " ".join(shown.split())[:PREVIEW]
    message = (
        f"{name} is {NAMES[kind]}: {counted(taken, 'character')} of text extracted, starting with {begins!r}"
    )
    scan.findings.append(Finding("warning", "document", message, before, name))
