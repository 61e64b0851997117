"""What is worth knowing of a text: refusals and warnings, with the place where each begins."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Literal

import numpy as np

from app.errors import TooLargeError

MOST_LINES = 100_000  # looked at for repeats
LONGEST_LINE = 10_000
LONG_ENOUGH = 20_000  # characters; a shorter text is learnt by heart
REPEATED = 0.3  # share of lines that stand in the text before
MANY_CHARACTERS = 500
RARE = 5  # times; what is rarer is hardly learnt
CONTROLS_TOLERATED = 1e-4  # share of the characters
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Finding:
    """Something about a text; `position` in characters, or in bytes of `file` where it cannot be decoded."""

    level: Literal["refusal", "warning"]
    code: str
    message: str
    position: int | None = None
    file: str | None = None


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


def as_details(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as plain JSON values."""
    return [asdict(finding) for finding in findings]
