"""Examines a text while it is written: its length, its digest, and unusual properties."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import IO

import numpy as np

from app.errors import TooLargeError
from app.intake.appearance import SAMPLE, appearance
from app.intake.findings import Finding, counted
from model.vocabulary import MAX_CHARACTERS

MAX_LINES = 100_000  # lines that are checked for repeats
LONGEST_LINE = 10_000
LONG_ENOUGH = 20_000  # characters; a shorter text is soon memorised
REPEATED = 0.3  # maximum fraction of lines that repeat an earlier one
MANY_CHARACTERS = 500
RARE = 5  # occurrences; a rarer character is hardly learnt
CONTROLS_TOLERATED, FEW_CONTROLS = 1e-4, 8  # fraction of control characters, or their number in a short text
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
C1_CONTROL = re.compile(r"[\x80-\x9f]")


class Controls:
    """Counts the control characters of one kind and keeps the first."""

    def __init__(self, kind: re.Pattern[str]) -> None:
        self._kind = kind
        self.count = 0
        self.first: tuple[int, str] | None = None

    def add(self, piece: str, position: int) -> None:
        for match in self._kind.finditer(piece):
            self.count += 1
            if self.first is None:
                self.first = (position + match.start(), match[0])


class TextScan:
    """Writes a text as UTF-8, in pieces and bounded memory, and collects findings.

    Args:
        out: the file to write to.
        limit: maximum number of bytes.

    Attributes:
        characters: number of characters so far; `distinct` is that of distinct ones.
        findings: about single files; their readers add them.
    """

    def __init__(self, out: IO[bytes], limit: int) -> None:
        self._out, self._limit = out, limit
        self.characters, self._size = 0, 0
        self.at_line_start = True
        self.findings: list[Finding] = []
        self._digest = hashlib.sha256()
        self._counts = np.zeros(0x110000, np.int64)
        self._first: dict[int, int] = {}
        self._controls, self._c1_controls = Controls(CONTROL), Controls(C1_CONTROL)
        self._lines: set[int] = set()
        self._seen_lines = self._repeated = 0
        self._first_repeat: int | None = None
        self._rest = ""
        self._sample: list[str] = []

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def distinct(self) -> int:
        return len(self._first)

    def add(self, piece: str) -> None:
        """Writes one piece of the text. Raises TooLargeError, OSError."""
        data = piece.encode("utf-8")
        self._size += len(data)
        if self._size > self._limit:
            raise TooLargeError(
                f"the text must be at most {self._limit:,} bytes of UTF-8 (CHARLOOM_MAX_CORPUS_BYTES); "
                "this one is larger: send a part of it"
            )
        self._out.write(data)
        self._digest.update(data)
        if self.characters < SAMPLE:
            self._sample.append(piece[: SAMPLE - self.characters])
        self._count(piece)
        self._controls.add(piece, self.characters)
        self._c1_controls.add(piece, self.characters)
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

    def _look_at_lines(self, piece: str) -> None:
        if self._seen_lines >= MAX_LINES:
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
        """The findings about files and about the whole text, refusals first."""
        found = [*self.findings, *self._of_controls(), *self._of_length(), *self._of_characters()]
        if self._seen_lines > 20 and self._repeated / self._seen_lines > REPEATED:
            share = self._repeated / self._seen_lines
            message = f"{share:.0%} of the lines repeat an earlier one: the network will repeat them"
            found.append(Finding("warning", "repeated_lines", message, self._first_repeat))
        if looks := appearance("".join(self._sample)):
            found.append(Finding("warning", looks.code, looks.message))
        return sorted(found, key=lambda finding: finding.level)

    def _of_controls(self) -> Iterator[Finding]:
        controls = self._controls
        if controls.first is not None:
            position, character = controls.first
            many = controls.count > max(FEW_CONTROLS, CONTROLS_TOLERATED * self.characters)
            what = f"{counted(controls.count, 'control character')}, the first U+{ord(character):04X}"
            if self._counts[0] or many:
                message = f"the text is binary, or in another encoding: it has {what}"
                yield Finding("refusal", "binary", message, position)
            else:
                yield Finding("warning", "control_characters", f"the text has {what}", position)
        if self._c1_controls.first is not None:
            position, character = self._c1_controls.first
            message = (
                f"the text has {counted(self._c1_controls.count, 'character')} from U+0080 to U+009F, the "
                f"first U+{ord(character):04X}: usually cp1252 read as latin-1; if so, send it with "
                f"encoding=cp1252"
            )
            yield Finding("warning", "c1_controls", message, position)

    def _of_length(self) -> Iterator[Finding]:
        if not self.characters:
            if not any(finding.level == "refusal" for finding in self.findings):
                yield Finding(
                    "refusal", "empty", "the text is empty: give at least a few thousand characters", 0
                )
        elif self.characters < LONG_ENOUGH:
            size = counted(self.characters, "character")
            message = f"the text has {size}, which the network will memorise: give it {LONG_ENOUGH:,} or more"
            yield Finding("warning", "short", message)

    def _of_characters(self) -> Iterator[Finding]:
        if self.distinct == 1:
            yield Finding("refusal", "one_character", "the text repeats a single character", 0)
        if self.distinct > MAX_CHARACTERS:
            message = f"{self.distinct:,} distinct characters; the limit is {MAX_CHARACTERS:,}"
            yield Finding("refusal", "too_many_characters", message)
        elif self.distinct > MANY_CHARACTERS:
            message = f"{self.distinct:,} distinct characters: the more there are, the longer training takes"
            yield Finding("warning", "many_characters", message)
        rare = [point for point in self._first if self._counts[point] < RARE]
        if rare and self.characters >= LONG_ENOUGH:
            first = min(rare, key=self._first.__getitem__)
            message = (
                f"the text has {counted(len(rare), 'distinct character')} with fewer than {RARE} "
                f"occurrences, too rare to learn, such as {chr(first)!r}"
            )
            yield Finding("warning", "rare_characters", message, self._first[first])
        if 0xFFFD in self._first:
            message = "the text contains U+FFFD, which marks characters lost in a conversion"
            yield Finding("warning", "replacement_characters", message, self._first[0xFFFD])
