"""The disk space of a store: its limit, and the deletion of old checkpoints to stay within it."""

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

RESERVED = 1 << 16  # bytes; enough for several status files
SHARE = 0.8  # default limit of a store, as a fraction of its volume


class StoreFullError(OSError):
    """The files that are never deleted leave no room."""

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
    """Keeps a store within `limit` bytes; 0 is no limit, None the fraction SHARE of its volume."""

    def __init__(self, store: RunStore, limit: int | None) -> None:
        self.store, self._limit = store, limit

    @property
    def limit(self) -> int:
        """The limit in bytes; 0 is no limit. Raises OSError."""
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
        """Deletes as many old checkpoints as necessary to write `needed` more bytes.

        Never deletes the newest and the best checkpoint of a run. Raises StoreFullError, without deleting
        any, if the others are not enough; OSError.
        """
        if not (limit := self.limit):
            return
        if self._limit is None and self._used() + needed <= limit:
            return  # the volume is not too full, so the store is not either: no need to add up its files
        used = size_of(self.store.root)
        if used + needed > limit and self.store.clear_leftovers():
            used = size_of(self.store.root)
        excess = used + needed - limit
        if excess <= 0:
            return
        chosen = []
        for path, size in self._removable():
            chosen.append(path)
            excess -= size
            if excess <= 0:
                break
        else:
            raise StoreFullError(needed, used, limit)
        for path in chosen:
            path.unlink(missing_ok=True)

    def available(self) -> int:
        """The bytes available for a new run, after the deletion of all old checkpoints. Raises OSError."""
        volume = self._volume()
        free = volume.f_bavail * volume.f_frsize
        if not (limit := self.limit):
            return free
        removable = sum(size for _, size in self._removable())
        return max(0, min(free, limit - size_of(self.store.root) + removable))

    def _removable(self) -> list[tuple[Path, int]]:
        """Checkpoints that are neither the newest nor the best of their run, with their sizes, oldest first.

        Kept checkpoints (app/store/kept.py) come last.
        """
        return self._by_age(_intermediate) + self._by_age(_kept)

    def _by_age(self, choose: Callable[[Run], list[Path]]) -> list[tuple[Path, int]]:
        found = []
        for run in self.store.list():
            for path in choose(run):
                try:
                    stat = path.lstat()
                except FileNotFoundError:  # the run's worker has just deleted it
                    continue
                found.append((stat.st_mtime_ns, path, stat.st_size))
        return [(path, size) for _, path, size in sorted(found)]


def _intermediate(run: Run) -> list[Path]:
    try:
        checkpoints = run.checkpoints()
    except RunNotFoundError:  # just deleted
        return []
    latest = run.usable_latest()
    kept = {latest.newest.file} if latest else set()
    return [path for path in list(checkpoints.values())[:-1] if path.name not in kept]


def _kept(run: Run) -> list[Path]:
    try:
        return list(run.kept().values())
    except RunNotFoundError:  # just deleted
        return []


def size_of(folder: Path) -> int:
    """The total bytes of all files below `folder`; links are not followed."""
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
    """The maximum bytes of a text, the maximum number of runs, and the disk budget of a store."""

    text: int
    runs: int
    budget: Budget


@contextmanager
def workshop(store: RunStore, limits: Limits) -> Iterator[Path]:
    """`scratch`, if the store can have one more run. Raises ConflictError, OSError."""
    check_runs(store, limits, 1)
    with scratch(store) as folder:
        yield folder


def check_runs(store: RunStore, limits: Limits, more: int) -> None:
    """Raises ConflictError if the store cannot have `more` more runs."""
    count = len(store.list())
    if count + more > limits.runs:
        needed = "" if more == 1 else f", {more} are needed"
        raise ConflictError(
            f"the store has {count} of {limits.runs} runs (CHARLOOM_MAX_RUNS){needed}: delete some first"
        )


@contextmanager
def scratch(store: RunStore) -> Iterator[Path]:
    """A temporary directory on the store's disk, which is removed after the block. Raises OSError."""
    store.make_root()
    folder = temporary_in(store.root)
    make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Reserve:
    """A file in `folder` that reserves disk space, to be freed when the disk is full."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".reserve"

    def keep(self) -> bool:
        """Creates the file unless it exists; returns False if there is no space for it."""
        if not is_regular(self.path):
            try:
                # random, because a file system may store zeros without allocating space
                write_atomic(self.path, secrets.token_bytes(RESERVED))
            except OSError:
                return False
        return True

    def give_up(self) -> None:
        """Frees the space. Raises OSError."""
        self.path.unlink(missing_ok=True)
