"""Joins small pieces of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LONG_ENOUGH = 1 << 16  # characters


def joined(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in longer pieces, which are faster to process."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= LONG_ENOUGH:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)
