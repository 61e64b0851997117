"""JSON answers in pieces: long lists are encoded part by part while earlier pieces are being sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from pydantic_core import to_json

PART = 256  # items of a list that are encoded together
PIECE_BYTES = 1 << 16

Dumps = Callable[[Any], bytes]


class Items:
    """A list of `count` items; `make(begin, end)` returns a range of them."""

    def __init__(self, count: int, make: Callable[[int, int], Sequence[Any]]) -> None:
        self.count, self.make = count, make


def ascii_json(value: Any) -> bytes:
    """`value`, which may contain `Items`, as compact JSON in ASCII, like the events of a stream."""
    return json.dumps(value, separators=(",", ":"), default=_listed).encode()


def utf8_json(value: Any) -> bytes:
    """`value`, which may contain `Items`, as compact JSON in UTF-8, with null for infinities and NaN."""
    return to_json(value, inf_nan_mode="null", fallback=_listed)


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, Items):
        return value.make(0, value.count) if value.count else []
    raise TypeError(f"{type(value).__name__} is not JSON")


def pieces(value: Any, dumps: Dumps) -> Iterator[bytes]:
    """`dumps(value)` in pieces of about PIECE_BYTES."""
    piece = bytearray()
    for part in _parts(value, dumps):
        piece += part
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _parts(value: Any, dumps: Dumps) -> Iterator[bytes]:
    if isinstance(value, Items):
        ranges = ((begin, min(begin + PART, value.count)) for begin in range(0, value.count, PART))
        yield from _between(b"[", ((dumps(value.make(*each))[1:-1],) for each in ranges), b"]")
    elif isinstance(value, dict):
        members = (chain((dumps(name), b":"), _parts(item, dumps)) for name, item in value.items())
        yield from _between(b"{", members, b"}")
    elif isinstance(value, list):
        yield from _between(b"[", (_parts(item, dumps) for item in value), b"]")
    else:
        yield dumps(value)


def _between(opening: bytes, entries: Iterable[Iterable[bytes]], closing: bytes) -> Iterator[bytes]:
    yield opening
    for number, entry in enumerate(entries):
        if number:
            yield b","
        yield from entry
    yield closing
