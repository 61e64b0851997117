"""Limits the size of a zip's directory, which `zipfile` reads into memory as a whole."""

from __future__ import annotations

import struct
from typing import IO

# the end-of-central-directory record: signature, disks, counts, size, offset, length of the comment
END = struct.Struct("<4s4H2LH")
END_MARK, LOCATOR_MARK = b"PK\x05\x06", b"PK\x06\x07"
LONGEST_COMMENT = 65_535


def check_directory(content: IO[bytes], limit: int) -> None:
    """Raises ValueError if the zip's directory has more than `limit` bytes, or if it is not a zip."""
    content.seek(0, 2)
    size = content.tell()
    content.seek(max(0, size - LONGEST_COMMENT - END.size - 20))
    tail = content.read()
    content.seek(0)
    at = tail.rfind(END_MARK)
    if at < 0 or at + END.size > len(tail):
        raise ValueError("File is not a zip file")
    directory = END.unpack_from(tail, at)[5]
    large = tail[max(0, at - 20) : at].startswith(LOCATOR_MARK)  # Zip64: the size is in another record
    if large or directory > limit:
        raise ValueError(f"the directory of the zip must have at most {limit:,} bytes")
