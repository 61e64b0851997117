"""Bytes to text: UTF-8 with plain line ends, or a refusal that says where and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from model.errors import TextError

LARGEST = 256 * 1024 * 1024  # bytes; far more than a character-level RNN on a CPU gets through

UTF8_MARK = b"\xef\xbb\xbf"
# the longer marks first: UTF-16's little-endian mark also begins UTF-32's
OTHER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
# tab, line feed, vertical tab, form feed and carriage return do occur in texts
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def read_text(path: Path | str) -> str:
    """The text of the file at `path`, as `decode_text` gives it.

    Raises TextError, or OSError if the file cannot be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise TextError(f"{path} is longer than {LARGEST:,} bytes, the most that is read; give a part of it")
    return decode_text(data, str(path))


def decode_text(data: bytes, source: str = "the text") -> str:
    """The text that `data` holds in UTF-8, without a byte order mark, every line end a line feed.

    Raises TextError, which calls the text `source` and gives the byte offset of the first fault, if it is
    empty, binary or in another encoding. Whether it is long enough depends on the run: see `model.batches`.
    """
    start = len(UTF8_MARK) if data.startswith(UTF8_MARK) else 0
    if len(data) == start:
        raise TextError(f"{source} is empty; give a file with at least some thousand characters")
    for mark, encoding in OTHER_MARKS.items():
        if data.startswith(mark):
            raise TextError(f"{source} is in {encoding}, by its byte order mark; {_convert(encoding)}", 0)
    if control := CONTROL.search(data):
        raise TextError(
            f"{source} is binary, or UTF-16 without a byte order mark: "
            f"byte 0x{control[0].hex()} is a control character that no plain text holds",
            control.start(),
        )
    try:
        text = data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = start + error.start
        raise TextError(
            f"{source} is not UTF-8 but in another encoding, or damaged: "
            f"byte 0x{data[offset]:02x} cannot stand there; if it is Latin-1, {_convert('latin1')}",
            offset,
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _convert(encoding: str) -> str:
    return f"convert it with: iconv -f {encoding} -t utf-8 old.txt > new.txt"
