"""Forms of type application/x-www-form-urlencoded, split on disk.

curl declares this type for anything sent with `--data-binary`, so a raw text must be distinguished from a
form.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Collection, Iterator
from typing import IO
from urllib.parse import unquote_to_bytes

from app.errors import InvalidRequestError

PIECE = 1 << 20
HEAD = 1 << 14  # bytes inspected
MOST_FIELDS, LONGEST_FIELD = 100, 200_000
ENCODED = re.compile(rb"(?:[A-Za-z0-9._~+*\[\]-]|%[0-9A-Fa-f]{2})+=[\x21-\x7e]*")
CUT = re.compile(rb"%[0-9A-Fa-f]?$")  # half of an escape, at the end of a piece


def is_form(head: bytes, fields: Collection[str]) -> bool:
    """Whether a body that starts with `head` is a form: fully encoded, or starting with one of `fields`."""
    name, separator, _ = head.partition(b"=")
    first = _decoded(name).decode("utf-8", "replace")
    return bool(ENCODED.fullmatch(head)) or (bool(separator) and first in fields)


def split_form(body: IO[bytes], kept: str) -> tuple[dict[str, str], IO[bytes] | None]:
    """The fields of the form in the file `body`, and the value of the field `kept` as a file.

    Raises InvalidRequestError if there are too many fields, or one is too long.
    """
    fields: dict[str, str] = {}
    content: IO[bytes] | None = None
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, count = 0, 0
        while start < len(data):
            end = _place(data, b"&", start, len(data))
            equals = _place(data, b"=", start, end)
            name = _short("form", data, start, equals)
            if name == kept and content is None:
                content = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the upload
                for piece in _pieces(data, equals + 1, end):
                    content.write(piece)
                content.seek(0)
            else:
                fields[name] = _short(name[:80], data, equals + 1, end)
            start, count = end + 1, count + 1
            if count > MOST_FIELDS:
                raise InvalidRequestError("form", f"must have at most {MOST_FIELDS} fields")
    return fields, content


def _place(data: mmap.mmap, mark: bytes, start: int, end: int) -> int:
    found = data.find(mark, start, end)
    return end if found < 0 else found


def _short(name: str, data: mmap.mmap, start: int, end: int) -> str:
    if end - start > LONGEST_FIELD:
        raise InvalidRequestError(name, f"must be at most {LONGEST_FIELD:,} bytes in a form")
    return _decoded(data[start:end]).decode("utf-8", "replace")


def _pieces(data: mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    """The decoded pieces of a long value."""
    while start < end:
        piece = data[start : min(start + PIECE, end)]
        if start + len(piece) < end and (cut := CUT.search(piece)):
            piece = piece[: cut.start()]
        start += len(piece)
        yield _decoded(piece)


def _decoded(value: bytes) -> bytes:
    return unquote_to_bytes(value.replace(b"+", b" "))
