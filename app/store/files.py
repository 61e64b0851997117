"""Atomic replacement of files: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Generic, NamedTuple, TypeVar

from app.store.temporaries import temporary_in

Value = TypeVar("Value")

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces the content of `path` with `data`; after a crash the file has the old or the new content.

    Raises OSError, for example if the disk is full; the file is unchanged then.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(
    path: Path, folder: Path | None = None, check: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """Yields the path of a new temporary file, which replaces `path` when the block ends without an error.

    Before that the file is flushed to disk and `check` is called. After an error the file is removed.
    `folder` is the directory of the temporary file, by default that of `path`.
    """
    folder = folder or path.parent
    folder.stat()  # if it is missing, the error names it and not the temporary file
    temporary = temporary_in(folder)
    try:
        os.close(open_new(temporary))
        yield temporary
        flush(temporary)
        check()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)  # makes the rename durable


def open_new(path: Path, flags: int = os.O_WRONLY | os.O_EXCL) -> int:
    """Creates a file with the permissions of its directory (see `inherited`) and returns its descriptor."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        with contextlib.suppress(PermissionError):  # the file exists and belongs to another user
            os.fchmod(descriptor, inherited(path.parent) & 0o660)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_folder(path: Path) -> None:
    """Creates a directory with the permissions of its parent (see `inherited`). Raises OSError."""
    path.mkdir(mode=0o700)
    path.chmod(inherited(path.parent))


def make_private(folder: Path) -> None:
    """Gives all files in `folder` the permissions that `open_new` gives. Raises OSError."""
    for path in folder.iterdir():
        if is_regular(path):
            path.chmod(inherited(folder) & 0o660)


def inherited(folder: Path) -> int:
    """The mode of a new directory in `folder`: everything for the owner, that of `folder` for the group.

    A store whose directory is shared with a group (`chmod g+rwxs`) is therefore shared as a whole.
    """
    return 0o700 | (folder.stat().st_mode & 0o2070)


def remove_folder(path: Path, root: Path) -> None:
    """Removes a directory below `root`; readers see either all of it or nothing. Raises OSError."""
    grave = temporary_in(root)
    path.rename(grave)
    flush(path.parent)
    shutil.rmtree(grave)


def flush(path: Path) -> None:
    """Waits until the content of a file, or the entries of a directory, are on disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file for reading.

    Raises FileNotFoundError, or OSError for anything else, such as a link, a directory or a device. Links are
    refused because one could point outside the store.
    """
    # O_NONBLOCK: otherwise opening a named pipe would wait for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is not a regular file")
    return open(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file. Raises as `open_regular`, and OSError above `limit` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(f"{path.name} has {size:,} bytes; the limit here is {limit:,}")
        return file.read(size)


def written_at(path: Path) -> float:
    """When a file was written, in Unix seconds by the clock of its volume, which all machines share.

    Raises OSError.
    """
    return path.stat().st_mtime


def is_regular(path: Path) -> bool:
    """Whether `path` is a regular file; a link to one is not."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


class Source(NamedTuple):
    """An uploaded or given file: its name, and its content, open at the start."""

    name: str
    content: IO[bytes]


class Identity(NamedTuple):
    """Identifies a version of a file: it changes when the file is changed or replaced. 0 for no file."""

    path: str
    inode: int
    modified: int
    size: int

    @property
    def run(self) -> str:
        """The name of the file's directory."""
        return Path(self.path).parent.name


def identity_of(path: str | Path) -> Identity:
    """The current identity of a file; links are not followed."""
    try:
        status = os.lstat(path)
    except OSError:
        return Identity(str(path), 0, 0, 0)
    return Identity(str(path), status.st_ino, status.st_mtime_ns, status.st_size)


class Unchanged(Generic[Value]):
    """A cache of values read from files, by name; a value is read again when its file has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Identity, Value]] = {}

    def get(self, name: str, path: str | Path, read: Callable[[], Value]) -> Value:
        """The value for the file at `path`, from the cache or from `read`, whose exceptions are passed on."""
        identity = identity_of(path)
        known = self._known.get(name)
        if known is None or known[0] != identity:
            known = self._known[name] = (identity, read())
        return known[1]

    def keep(self, names: Collection[str]) -> None:
        """Removes all other names from the cache."""
        for name in set(self._known).difference(names):
            self._known.pop(name, None)
