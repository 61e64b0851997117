"""Files that are whole or not there: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Generic, NamedTuple, TypeVar

from app.store.temporaries import temporary_in

Value = TypeVar("Value")

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`: after a crash it holds the old bytes or the new, never a mixture.

    Raises OSError (a full disk, a missing folder, …); the file at `path` is then untouched.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(
    path: Path, folder: Path | None = None, check: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """A temporary name in `folder`, by default that of `path`, to be written within the block.

    The file written there is flushed to disk and, after `check`, takes the place of `path` when the block
    ends without an error; otherwise it is removed.
    """
    temporary = temporary_in(folder or path.parent)
    try:
        os.close(open_new(temporary))
        yield temporary
        flush(temporary)
        check()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)  # a rename is on the disk only once its folder is


def open_new(path: Path, flags: int = os.O_WRONLY | os.O_EXCL) -> int:
    """A descriptor of a file that is made for this, as private as its folder: see `inherited`."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        with contextlib.suppress(PermissionError):  # it was there, and is another user's
            os.fchmod(descriptor, inherited(path.parent) & 0o660)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_folder(path: Path) -> None:
    """A new folder, as private as the one it is in: see `inherited`. Raises OSError."""
    path.mkdir(mode=0o700)
    path.chmod(inherited(path.parent))


def make_private(folder: Path) -> None:
    """Give the files in `folder`, regardless of their creator, the permissions of new files."""
    for path in folder.iterdir():
        if is_regular(path):
            path.chmod(inherited(folder) & 0o660)


def inherited(folder: Path) -> int:
    """The permissions of a new folder in `folder`: all for the owner, those of `folder` for the group.

    So a store whose folder is given to a group (`chmod g+rwxs`) is shared with that group.
    """
    return 0o700 | (folder.stat().st_mode & 0o2070)


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


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises OSError: FileNotFoundError, or one that says that it is a link, a folder or a device. Links are
    refused because one could point out of the store.
    """
    # O_NONBLOCK: opening a named pipe would otherwise wait for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is not a regular file")
    return open(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit`; raises as `open_regular`, and OSError for more."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(f"{path.name} has {size:,} bytes; the limit here is {limit:,}")
        return file.read(size)


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


class Identity(NamedTuple):
    """Identifies a state of a file: another one of the same name differs; all 0 where there is none."""

    path: str
    inode: int
    modified: int
    size: int

    @property
    def run(self) -> str:
        """The name of the folder that the file is in."""
        return Path(self.path).parent.name


def identity_of(path: str | Path) -> Identity:
    """What a file is now; links are not followed."""
    try:
        status = os.lstat(path)
    except OSError:
        return Identity(str(path), 0, 0, 0)
    return Identity(str(path), status.st_ino, status.st_mtime_ns, status.st_size)


class Unchanged(Generic[Value]):
    """What was read of files, by name, read again only where the file is another one."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Identity, Value]] = {}

    def get(self, name: str, path: str | Path, read: Callable[[], Value]) -> Value:
        """What `read` gives of the file at `path`. Raises as `read`, and keeps nothing then."""
        identity = identity_of(path)
        known = self._known.get(name)
        if known is None or known[0] != identity:
            known = self._known[name] = (identity, read())
        return known[1]

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        for name in set(self._known).difference(names):
            self._known.pop(name, None)
