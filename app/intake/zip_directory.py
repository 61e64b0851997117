"""How many names a zip may have: they are all read into memory before anything else is known of it."""

from __future__ import annotations

import struct
from typing import IO

END = struct.Struct("<4s4H2LH")  # of the directory: mark, disks, counts, size, offset, length of a comment
END_MARK, LOCATOR_MARK = b"PK\x05\x06", b"PK\x06\x07"
LONGEST_COMMENT = 65_535


def check_directory(content: IO[bytes], limit: int) -> None:
    """Raises ValueError for a zip whose directory of names has more than `limit` bytes, or that is no zip."""
    content.seek(0, 2)
    size = content.tell()
    content.seek(max(0, size - LONGEST_COMMENT - END.size - 20))
    tail = content.read()
    content.seek(0)
    at = tail.rfind(END_MARK)
    if at < 0 or at + END.size > len(tail):
        raise ValueError("File is not a zip file")
    directory = END.unpack_from(tail, at)[5]
    large = tail[max(0, at - 20) : at].startswith(LOCATOR_MARK)  # then another record has the size
    if large or directory > limit:
        raise ValueError(f"the directory of the zip must have at most {limit:,} bytes")
