"""What is worth knowing about a text: refusals and warnings, each with the place where it begins."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.errors import UnusableTextError

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
LONGEST_NAME = 200


@dataclass(frozen=True)
class Finding:
    """Something about a text; `position` in characters, or in bytes of `file` where it cannot be decoded."""

    level: Literal["refusal", "warning"]
    code: str
    message: str
    position: int | None = None
    file: str | None = None


class FileRefusedError(Exception):
    """A file of an upload cannot be used; `finding` says why. Ends the reading of that file only."""

    def __init__(self, code: str, message: str, position: int | None = None, file: str | None = None) -> None:
        super().__init__(message)
        self.finding = Finding("refusal", code, message, position, file)


def as_details(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as plain JSON values."""
    return [asdict(finding) for finding in findings]


def unusable(findings: list[Finding]) -> UnusableTextError:
    """The error for a text with these findings, of which the first is a refusal."""
    return UnusableTextError(findings[0].message, as_details(findings))


def counted(number: int, noun: str) -> str:
    """A number and what it counts: `1 character`, `2,000 characters`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable_name(name: str) -> str:
    """A file's name as it can be shown and stored: what is not UTF-8, and control characters, as U+FFFD."""
    return UNPRINTABLE.sub("\ufffd", name)[:LONGEST_NAME]
