"""How many bytes the files of a store may take: where there is no more room, old checkpoints go first."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from app.errors import ConflictError, RunNotFoundError
from app.store.files import is_regular, make_folder, write_atomic
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.temporaries import temporary_in

RESERVED = 1 << 16  # bytes: some statuses
SHARE = 0.8  # of the volume that a store may take unless a limit is set


class StoreFullError(OSError):
    """What is kept in any case leaves no room."""

    def __init__(self, needed: int, used: int, limit: int) -> None:
        super().__init__(
            errno.EDQUOT,
            f"{needed:,} more bytes do not fit: the store uses {used:,} of {limit:,} bytes "
            "(four fifths of its volume, or CHARLOOM_MAX_STORE_BYTES) and has no checkpoint that can be "
            "deleted",
        )

    def __str__(self) -> str:
        return self.strerror or ""


class Budget:
    """Keeps the files of `store` within `limit` bytes, 0 for no limit, None for a share of its volume."""

    def __init__(self, store: RunStore, limit: int | None) -> None:
        self.store, self._limit = store, limit

    @property
    def limit(self) -> int:
        """Bytes, 0 for no limit. Raises OSError."""
        if self._limit is not None:
            return self._limit
        volume = self._volume()
        return int(SHARE * volume.f_blocks * volume.f_frsize)

    def _used(self) -> int:
        volume = self._volume()
        return (volume.f_blocks - volume.f_bfree) * volume.f_frsize

    def _volume(self) -> os.statvfs_result:
        folder = self.store.root
        while not folder.exists():
            folder = folder.parent
        return os.statvfs(folder)

    def make_room(self, needed: int) -> None:
        """Remove as many old checkpoints as it takes for `needed` bytes more.

        The newest and the best of each run stay. Raises StoreFullError if the others are not enough, and
        then removes none; OSError.
        """
        if not (limit := self.limit):
            return
        if self._limit is None and self._used() + needed <= limit:
            return  # the store takes no more than all of its volume, which need not be added up
        used = size_of(self.store.root)
        if used + needed > limit and self.store.clear_leftovers():
            used = size_of(self.store.root)
        excess = used + needed - limit
        if excess <= 0:
            return
        going = []
        for path, size in self._removable():
            going.append(path)
            excess -= size
            if excess <= 0:
                break
        else:
            raise StoreFullError(needed, used, limit)
        for path in going:
            path.unlink(missing_ok=True)

    def most(self) -> int:
        """Bytes that one more run could take: what is free, within the limit once old checkpoints have gone.

        Raises OSError.
        """
        volume = self._volume()
        free = volume.f_bavail * volume.f_frsize
        if not (limit := self.limit):
            return free
        going = sum(size for _, size in self._removable())
        return max(0, min(free, limit - size_of(self.store.root) + going))

    def _removable(self) -> list[tuple[Path, int]]:
        """Checkpoints that are neither the newest nor the best of their run, oldest first; their sizes.

        Those that somebody has a link to come last.
        """
        return self._by_age(_intermediate) + self._by_age(_kept)

    def _by_age(self, choose: Callable[[Run], list[Path]]) -> list[tuple[Path, int]]:
        found = []
        for run in self.store.list():
            for path in choose(run):
                try:
                    stat = path.lstat()
                except FileNotFoundError:  # its own worker was quicker
                    continue
                found.append((stat.st_mtime_ns, path, stat.st_size))
        return [(path, size) for _, path, size in sorted(found)]


def _intermediate(run: Run) -> list[Path]:
    try:
        checkpoints = run.checkpoints()
    except RunNotFoundError:  # deleted meanwhile
        return []
    latest = run.usable_latest()
    kept = {latest.newest.file} if latest else set()
    return [path for path in list(checkpoints.values())[:-1] if path.name not in kept]


def _kept(run: Run) -> list[Path]:
    try:
        return list(run.kept().values())
    except RunNotFoundError:  # deleted meanwhile
        return []


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`; links count as themselves."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(Path(entry.path))
                else:
                    try:
                        yield entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        continue
    except FileNotFoundError:
        return


class Limits(NamedTuple):
    """Most bytes of a text, most runs of a store, and what all its files may take."""

    text: int
    runs: int
    budget: Budget


@contextmanager
def workshop(store: RunStore, limits: Limits) -> Iterator[Path]:
    """A folder of the store, on its disk, that is gone after the block. Raises ConflictError, OSError."""
    check_runs(store, limits, 1)
    with scratch(store) as folder:
        yield folder


def check_runs(store: RunStore, limits: Limits, more: int) -> None:
    """Raises ConflictError if so many runs more are too many."""
    count = len(store.list())
    if count + more > limits.runs:
        needed = "" if more == 1 else f", {more} are needed"
        raise ConflictError(
            f"the store has {count} of {limits.runs} runs (CHARLOOM_MAX_RUNS){needed}: delete some first"
        )


@contextmanager
def scratch(store: RunStore) -> Iterator[Path]:
    """The same, whatever the store holds. Raises OSError."""
    store.make_root()
    folder = temporary_in(store.root)
    make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Reserve:
    """A file in `folder` that is there only to be given up."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".reserve"

    def keep(self) -> bool:
        """Take the room, unless it is taken; False where there is none."""
        if not is_regular(self.path):
            try:
                # random, since a file system may keep zeros for nothing
                write_atomic(self.path, secrets.token_bytes(RESERVED))
            except OSError:
                return False
        return True

    def give_up(self) -> None:
        """Raises OSError."""
        self.path.unlink(missing_ok=True)
