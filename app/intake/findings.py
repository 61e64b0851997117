"""Findings about a text: refusals and warnings, each with its position."""

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
    """A problem with a text. `position` is in characters, or in bytes of `file` if that cannot be decoded."""

    level: Literal["refusal", "warning"]
    code: str
    message: str
    position: int | None = None
    file: str | None = None


class FileRefusedError(Exception):
    """A file of an upload cannot be used; `finding` says why. Other files are still read."""

    def __init__(self, code: str, message: str, position: int | None = None, file: str | None = None) -> None:
        super().__init__(message)
        self.finding = Finding("refusal", code, message, position, file)


def as_details(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as JSON values."""
    return [asdict(finding) for finding in findings]


def unusable(findings: list[Finding]) -> UnusableTextError:
    """The error for a text with these findings; the first must be a refusal."""
    return UnusableTextError(findings[0].message, as_details(findings))


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 character`, `2,000 characters`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable_name(name: str) -> str:
    """A file name without control characters and invalid UTF-8, which become U+FFFD; at most LONGEST_NAME."""
    return UNPRINTABLE.sub("\ufffd", name)[:LONGEST_NAME]
