"""Headers as ASGI carries them, pairs of bytes, searched and completed without making copies of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Pair = tuple[bytes, bytes]
Pairs = list[Pair]


def header(headers: Iterable[Pair], name: bytes) -> str | None:
    """The first value of a header, its name in lower case; None where there is none."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def completed(headers: Pairs, defaults: Sequence[Pair]) -> Pairs:
    """The headers of an answer, and those of the defaults that it does not have, all in lower case."""
    given = {name for name, _ in headers}
    return headers + [pair for pair in defaults if pair[0] not in given]
