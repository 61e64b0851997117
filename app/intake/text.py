"""A text that someone brings: written to disk as UTF-8 while it is read, counted, and looked at.

Nothing here holds more than a piece of it. What makes a text unusable is a refusal, what is merely worth
knowing a warning; both are findings, with the place where they begin.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from app.errors import TooLargeError, UnusableTextError
from app.store.files import flush
from app.store.run import Text
from model.batches import windows_per_epoch
from model.config import RunConfig
from model.text import OTHER_MARKS, UTF8_MARK

PIECE = 1 << 20  # bytes read at once
ENCODINGS = (
    *("utf-8", "utf-16", "utf-32", "ascii", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp437"),
    *(f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))),
    *("koi8-r", "koi8-u", "mac-roman", "shift_jis", "euc_jp", "gb18030", "gbk", "big5", "euc_kr"),
)
MOST_FILES = 10_000  # of a zip
MOST_LINES = 100_000  # looked at for repeats
LONGEST_LINE = 10_000
LONG_ENOUGH = 20_000  # characters; a shorter text is learnt by heart
REPEATED = 0.3  # share of lines that stand in the text before
MANY_CHARACTERS = 500
RARE = 5  # times; what is rarer is hardly learnt
CONTROLS_TOLERATED = 1e-4  # share of the characters
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
# two cores of a common machine: what a call costs, and a product's floating-point operations a second
CORES, CALL_SECONDS, FLOPS = 2, 9e-6, 50e9
ARCHIVE_MARKS = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True)
class Finding:
    """Something about a text; `position` in characters, or in bytes of `file` where it cannot be decoded."""

    level: Literal["refusal", "warning"]
    code: str
    message: str
    position: int | None = None
    file: str | None = None


class Source(NamedTuple):
    """A file that was brought: its name, and its content at the beginning."""

    name: str
    content: IO[bytes]


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


@dataclass
class _Look:
    """What is known of the text so far."""

    characters: int = 0
    size: int = 0
    at_line_start: bool = True
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()
        self._counts = np.zeros(0x110000, np.int64)
        self._first: dict[int, int] = {}
        self._controls = 0
        self._first_control: tuple[int, str] | None = None
        self._lines: set[int] = set()
        self._seen_lines = self._repeated = 0
        self._first_repeat: int | None = None
        self._rest = ""

    @property
    def distinct(self) -> int:
        return len(self._first)

    def add(self, piece: str, out: IO[bytes], limit: int) -> None:
        data = piece.encode("utf-8")
        self.size += len(data)
        if self.size > limit:
            raise TooLargeError(
                f"the text must be at most {limit:,} bytes (CHARLOOM_MAX_CORPUS_BYTES); this one has more"
            )
        out.write(data)
        self.digest.update(data)
        self._count(piece)
        self._look_for_controls(piece)
        self._look_at_lines(piece)
        self.characters += len(piece)
        self.at_line_start = piece.endswith("\n")

    def _count(self, piece: str) -> None:
        points = np.frombuffer(piece.encode("utf-32-le"), np.uint32)
        counts = np.bincount(points)
        for point in np.flatnonzero(counts):
            if int(point) not in self._first:
                self._first[int(point)] = self.characters + piece.index(chr(point))
        self._counts[: len(counts)] += counts

    def _look_for_controls(self, piece: str) -> None:
        for match in CONTROL.finditer(piece):
            self._controls += 1
            if self._first_control is None:
                self._first_control = (self.characters + match.start(), match[0])

    def _look_at_lines(self, piece: str) -> None:
        if self._seen_lines >= MOST_LINES:
            return
        position = self.characters - len(self._rest)
        lines = (self._rest + piece).split("\n")
        self._rest = lines.pop()[:LONGEST_LINE]
        for line in lines:
            if line.strip():
                self._seen_lines += 1
                known = hash(line)
                if known in self._lines:
                    self._repeated += 1
                    if self._first_repeat is None:
                        self._first_repeat = max(0, position)
                self._lines.add(known)
            position += len(line) + 1

    def all_findings(self) -> list[Finding]:
        """All of them, refusals first."""
        found = [*self.findings, *self._of_controls(), *self._of_length(), *self._of_characters()]
        if self._seen_lines > 20 and self._repeated / self._seen_lines > REPEATED:
            share = self._repeated / self._seen_lines
            message = f"{share:.0%} of the lines stand in the text before: the network will repeat them"
            found.append(Finding("warning", "repeated_lines", message, self._first_repeat))
        return sorted(found, key=lambda finding: finding.level)

    def _of_controls(self) -> Iterator[Finding]:
        if self._first_control is None:
            return
        position, character = self._first_control
        binary = self._counts[0] or self._controls > CONTROLS_TOLERATED * self.characters
        what = f"{self._controls:,} control characters, the first U+{ord(character):04X}"
        if binary:
            message = f"the text is binary, or in another encoding: it has {what}"
            yield Finding("refusal", "binary", message, position)
        else:
            yield Finding("warning", "control_characters", f"the text has {what}", position)

    def _of_length(self) -> Iterator[Finding]:
        if not self.characters:
            if not self.findings:
                yield Finding("refusal", "empty", "the text is empty: give some thousand characters", 0)
        elif self.characters < LONG_ENOUGH:
            message = f"{self.characters:,} characters are few: the network will learn them by heart"
            yield Finding("warning", "short", message)

    def _of_characters(self) -> Iterator[Finding]:
        if self.distinct == 1:
            yield Finding("refusal", "one_character", "the text repeats a single character", 0)
        if self.distinct > MANY_CHARACTERS:
            message = f"{self.distinct:,} distinct characters: the more there are, the longer it takes"
            yield Finding("warning", "many_characters", message)
        rare = [point for point in self._first if self._counts[point] < RARE]
        if rare and self.characters >= LONG_ENOUGH:
            first = min(rare, key=self._first.__getitem__)
            message = (
                f"{len(rare):,} characters stand there less than {RARE} times and will hardly be learnt, "
                f"such as {chr(first)!r}"
            )
            yield Finding("warning", "rare_characters", message, self._first[first])
        if 0xFFFD in self._first:
            message = "the text holds U+FFFD, which stands for what was lost in a conversion"
            yield Finding("warning", "replacement_characters", message, self._first[0xFFFD])


def check_length(config: RunConfig, characters: int) -> None:
    """Raises TextError if a text of so many characters is too short for a run of `config`."""
    held_out = int(characters * config.validation_fraction)
    windows_per_epoch(characters - held_out, config.sequence_length, config.streams)


def expected_seconds(config: RunConfig, distinct: int) -> float:
    """About how long a run takes on two cores, alone: a cost for each step of a layer, and its products."""
    if config.minutes:
        return 60 * config.minutes
    characters = config.steps * config.sequence_length * config.streams
    return characters * math.ceil(config.members / CORES) / expected_speed(config, distinct)


def expected_speed(config: RunConfig, distinct: int) -> float:
    """About how many characters a second one network reads on one core, as measured on a common machine."""
    gates = {"elman": 1, "gru": 3, "lstm": 4}[config.cell]
    products = (2 * config.layers - 1) * gates * config.hidden**2 + config.hidden * distinct
    calls = CALL_SECONDS * config.layers * gates / config.streams
    return min(config.shards, CORES) / (calls + 6 * products / FLOPS)


def as_details(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as plain JSON values."""
    return [asdict(finding) for finding in findings]
