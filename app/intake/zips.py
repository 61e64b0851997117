"""Zips, whose damage shows anywhere while they are read."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from app.intake.findings import FileRefusedError, printable_name
from app.intake.zip_directory import check_directory
from app.store.files import Source

LARGEST_DIRECTORY = 4 << 20  # bytes of the list of files
ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")


@contextmanager
def refusing_damage(name: str, what: str = "a zip that cannot be unpacked") -> Iterator[None]:
    """Turn whatever a damaged zip raises within the block into FileRefusedError; the disk's errors pass."""
    try:
        yield
    except (FileRefusedError, MemoryError):
        raise
    except Exception as error:
        if is_of_disk(error):
            raise
        raise FileRefusedError("bad_zip", f"{name} is {what}: {_reason(error)}", None, name) from None


def is_of_disk(error: Exception) -> bool:
    """Whether it is an error of the disk; damage is a seek to nowhere, or bad bzip2."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _reason(error: Exception) -> str:
    said = printable_name(str(error))[:150]
    return "it has a password" if "password required" in said else said or "it is truncated"


def open_zip(content: IO[bytes]) -> zipfile.ZipFile:
    """A zip, once the list of its files is known to fit into memory. For a block of `refusing_damage`."""
    check_directory(content, LARGEST_DIRECTORY)
    return zipfile.ZipFile(content)


class Room:
    """How many bytes the files of a zip may have, unpacked: a small zip may hold any number."""

    def __init__(self, zip_name: str, most: int) -> None:
        self._name, self._most, self._left = zip_name, most, most

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            most = f"{self._most:,} bytes unpacked"
            message = f"{self._name} must have at most {most}; it is larger: send a part of it"
            raise FileRefusedError("large_zip", message, None, self._name)


class Member:
    """A file in a zip, open for reading; damage that shows while it is read is FileRefusedError too."""

    def __init__(self, content: IO[bytes], name: str, room: Room) -> None:
        self._content, self._name, self._room = content, name, room

    def read(self, size: int = -1) -> bytes:
        with refusing_damage(self._name, "damaged inside the zip"):
            data = self._content.read(size)
        self._room.take(len(data))
        return data


def members(source: Source, most: int) -> Iterator[Source]:
    """The files in a zip, at most `most` bytes, in the order of their names; no folders, no hidden files.

    Their content can be read, not sought. Raises FileRefusedError.
    """
    zip_name = printable_name(source.name)
    room = Room(zip_name, most)
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
