"""Refuses ranges that an answer cannot have, without making the answer again (RFC 9110, 14.2 and 15.5.17)."""

from __future__ import annotations

import re
from collections import OrderedDict

from fastapi import Request
from starlette.exceptions import HTTPException

PART = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)", re.ASCII)
MOST_DIGITS = 18  # more are beyond any file


class KnownSizes:
    """The sizes of answers by their entity tag, of the `most` that were noted last. For one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def note(self, tag: str, size: int) -> None:
        """Remember the size of the answer of that tag."""
        self._sizes[tag] = size
        self._sizes.move_to_end(tag)
        while len(self._sizes) > self._most:
            self._sizes.popitem(last=False)

    def check(self, request: Request, tag: str) -> None:
        """Raises HTTPException: 400 for what is not a range, 416 for one beyond the end, if that is known."""
        given = request.headers.get("range")
        if given is None or request.headers.get("if-range", tag) != tag:  # else all of it is sent
            return
        starts = _starts(given)
        size = self._sizes.get(tag)
        if size is not None and any(start is not None and start >= size for start in starts):
            detail = f"Range must begin before the end, which is at {size} bytes. Given: {given[:80]}"
            raise HTTPException(416, detail, {"content-range": f"bytes */{size}"})


def _starts(given: str) -> list[int | None]:
    """Where each of the ranges begins; None for one that is counted from the end. Raises HTTPException."""
    unit, _, listed = given.partition("=")
    parts = [part.strip() for part in listed.split(",") if part.strip()]
    matches = [PART.fullmatch(part) for part in parts]
    ranges = [match for match in matches if match and not _ends_before_it_begins(match)]
    if unit.strip().lower() != "bytes" or not ranges or len(ranges) < len(matches):
        detail = f"Range must be like bytes=0-499 or bytes=-500. Given: {given[:80]}"
        raise HTTPException(400, detail)
    return [_start(match) for match in ranges]


def _start(match: re.Match[str]) -> int | None:
    if match[1]:
        return _number(match[1])
    return None if match[3].strip("0") else 10**MOST_DIGITS  # the last 0 bytes begin at the end


def _ends_before_it_begins(match: re.Match[str]) -> bool:
    return bool(match[1] and match[2]) and _number(match[2]) < _number(match[1])


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= MOST_DIGITS else 10**MOST_DIGITS
