"""Functions on ASGI headers, which are pairs of bytes, without a copy for each lookup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Pair = tuple[bytes, bytes]
Pairs = list[Pair]


def header(headers: Iterable[Pair], name: bytes) -> str | None:
    """The first value of the header `name` (lower case), or None."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def completed(headers: Pairs, defaults: Sequence[Pair]) -> Pairs:
    """The headers of an answer plus the defaults that it lacks; all names are lower case."""
    given = {name for name, _ in headers}
    return headers + [pair for pair in defaults if pair[0] not in given]
