"""Extracts the text of subtitles (SubRip or WebVTT), without numbers, times, tags and comments."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

TIMES = re.compile(r"\s*(?:\d+:)?\d\d?:\d\d[,.]\d{1,3}\s*-->")
TAG = re.compile(r"</?[a-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}", re.I)
NOT_SAID = ("NOTE", "STYLE", "REGION", "WEBVTT")  # first words of WebVTT blocks that are not shown


def subtitle_text(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of the subtitles."""
    web = first = True  # `first`: whether the line is the first of a block
    skipped = False
    held: str | None = None  # the previous line, which is a cue's number or name if a time follows
    for count, line in enumerate(_lines(pieces)):
        if count == 0:
            web = line.startswith("WEBVTT")
        if TIMES.match(line):
            held, skipped, first = None, False, False
            continue
        if held is not None and not skipped:
            yield _said(held, web)
        held = None
        if not line.strip():
            first, skipped = True, False
            continue
        if first and web and line.startswith(NOT_SAID):
            skipped = True
        elif not skipped and (first or line.strip().isdecimal()):
            held = line
        elif not skipped:
            yield _said(line, web)
        first = False
    if held is not None:
        yield _said(held, web)


def _said(line: str, web: bool) -> str:
    said = TAG.sub("", line).strip()
    return f"{html.unescape(said) if web else said}\n"


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest
