"""Files that are whole or not there: written beside their name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError
TEMPORARY_PREFIX = ".tmp-"


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`: after a crash it holds the old bytes or the new, never a mixture.

    Raises OSError (a full disk, a missing folder, …); the file at `path` is then untouched.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the folder of `path`, to be written within the block.

    The file written there is flushed to disk and takes the place of `path` when the block ends without an
    error; otherwise it is removed.
    """
    temporary = temporary_in(path.parent)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)  # a rename is on the disk only once its folder is


def temporary_in(folder: Path) -> Path:
    """A name in `folder` that nobody has, and that is cleared away if it is left there."""
    return folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


def remove_folder(path: Path, root: Path) -> None:
    """Remove a folder below `root`: a reader meets all of it or nothing. Raises OSError."""
    grave = temporary_in(root)
    path.rename(grave)
    flush(path.parent)
    shutil.rmtree(grave)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path, seconds: float = 0.0) -> int:
    """Remove what killed writers left in `folder`, and say how many.

    Where others may be writing, `seconds` is how long ago something must have been written to be left over.
    """
    stale = []
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if entry.name.startswith(TEMPORARY_PREFIX) and entry.lstat().st_mtime <= time.time() - seconds:
                stale.append(entry)
    for entry in stale:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return len(stale)


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises OSError: FileNotFoundError, or one that says that it is a link, a folder or a device. Links are
    refused because one could point out of the store.
    """
    # O_NONBLOCK: opening a named pipe would otherwise wait for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return open(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit`; raises as `open_regular`, and OSError for more."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(f"{path} has {size:,} bytes; the limit here is {limit:,}")
        return file.read(limit)


def is_regular(path: Path) -> bool:
    """Whether `path` is a regular file, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


class Source(NamedTuple):
    """A file that was brought: its name, and its content at the beginning."""

    name: str
    content: IO[bytes]
