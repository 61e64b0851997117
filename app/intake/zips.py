"""Reads zips, which can turn out to be damaged at any time while they are read."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from app.intake.findings import FileRefusedError, printable_name
from app.intake.zip_directory import check_directory
from app.store.files import Source

LARGEST_DIRECTORY = 4 << 20  # bytes
ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")


@contextmanager
def refusing_damage(name: str, what: str = "a zip that cannot be unpacked") -> Iterator[None]:
    """Turns errors of a damaged zip in the block into FileRefusedError; errors of the disk are passed on."""
    try:
        yield
    except (FileRefusedError, MemoryError):
        raise
    except Exception as error:
        if is_of_disk(error):
            raise
        raise FileRefusedError("bad_zip", f"{name} is {what}: {_reason(error)}", None, name) from None


def is_of_disk(error: Exception) -> bool:
    """Whether it is an error of the disk. Damaged zips raise OSError too, for bad seeks or bzip2 data."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _reason(error: Exception) -> str:
    said = printable_name(str(error))[:150]
    return "it has a password" if "password required" in said else said or "it is truncated"


def open_zip(content: IO[bytes]) -> zipfile.ZipFile:
    """Opens a zip after checking the size of its directory. Call it in a block of `refusing_damage`."""
    check_directory(content, LARGEST_DIRECTORY)
    return zipfile.ZipFile(content)


class Room:
    """Limits the total unpacked size of a zip's files, which may be far larger than the zip."""

    def __init__(self, zip_name: str, limit: int) -> None:
        self._name, self._limit, self._left = zip_name, limit, limit

    def take(self, size: int) -> None:
        """Counts `size` more bytes. Raises FileRefusedError above the limit."""
        self._left -= size
        if self._left < 0:
            limit = f"{self._limit:,} bytes unpacked"
            message = f"{self._name} must have at most {limit}; it is larger: send a part of it"
            raise FileRefusedError("large_zip", message, None, self._name)


class Member:
    """A file in a zip, open for reading. Reading raises FileRefusedError if it is damaged or too large."""

    def __init__(self, content: IO[bytes], name: str, room: Room) -> None:
        self._content, self._name, self._room = content, name, room

    def read(self, size: int = -1) -> bytes:
        with refusing_damage(self._name, "damaged inside the zip"):
            data = self._content.read(size)
        self._room.take(len(data))
        return data


def members(source: Source, limit: int) -> Iterator[Source]:
    """The files in a zip in the order of their names, without hidden files; at most `limit` bytes unpacked.

    Their content is not seekable. Raises FileRefusedError.
    """
    zip_name = printable_name(source.name)
    room = Room(zip_name, limit)
    with refusing_damage(zip_name):
        archive = open_zip(source.content)
    with archive:
        with refusing_damage(zip_name):
            if not all(member.filename for member in archive.infolist()):
                raise ValueError("a file in it has no name")
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            hidden = any(part.startswith((".", "__MACOSX")) for part in member.filename.split("/"))
            if member.is_dir() or hidden:
                continue
            with refusing_damage(zip_name):
                content = archive.open(member)
            with content:
                name = printable_name(member.filename)
                yield Source(member.filename, Member(content, name, room))  # type: ignore[arg-type]
