"""Leases: a process holds a run's lease while it trains or deletes the run.

    checkpoints/.store.json           the locking scheme (StoreInfo), the same for all processes
                .leases/<run>.lease   exists while a process holds the run; names its host and process
                .worker.lock/         a directory in place of the lock of earlier versions, which stops those

A thread of the holder renews the lease. Another process takes it over after it has seen the lease unchanged
for its whole duration, by its own monotonic clock: clocks of different machines are never compared. If the
holder was on the same machine and is no longer running, its lease is taken over immediately.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock, SoftFileLease, Timeout
from filelock import OwnerRecord as Holder
from pydantic import Field

from app.errors import ConflictError
from app.healthcheck import is_running
from app.store.files import Identity, identity_of, inherited, make_folder
from app.store.records import Record

LEASE_SECONDS = 30.0
INFO = ".store.json"
FOLDER = ".leases"
OLD_LOCK = ".worker.lock"
PATIENCE = 1.1  # durations after which an expired lease that filelock could not take over is moved aside


class StoreBusyError(ConflictError):
    """A worker of an earlier version holds the store."""


class StoreInfo(Record):
    """The locking scheme of a store; written by the first process that takes a lease."""

    locks: Literal["leases"] = "leases"
    lease_seconds: Annotated[float, Field(ge=0.5, le=3600)] = LEASE_SECONDS


class Leases:
    """The leases of a store.

    Args:
        root: the store's directory.
        seconds: the duration of leases, for a store that has none yet.
        changing: the store's lock, `RunStore.changing`.
    """

    def __init__(
        self, root: Path, seconds: float, changing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._root, self._seconds, self._changing = root, seconds, changing
        self._agreed: StoreInfo | None = None
        # what was seen of another process's lease, kept for the next attempt, so that the lease can expire
        self._observed: dict[str, tuple[SoftFileLease, Identity | None, float]] = {}

    def info(self) -> StoreInfo | None:
        """The store's locking scheme; None if no lease was ever taken. Raises RunFileError."""
        with contextlib.suppress(FileNotFoundError):
            return StoreInfo.read(self._root / INFO)
        return None

    @property
    def seconds(self) -> float:
        """The duration of the store's leases. Raises as `prepare`."""
        return self.prepare().lease_seconds

    def prepare(self) -> StoreInfo:
        """Makes sure that the store uses leases, and converts a store of an earlier version.

        Raises StoreBusyError if a worker of an earlier version holds the store, RunFileError, OSError.
        """
        if self._agreed is None:
            self._agreed = self.info()
        if self._agreed is None:
            with self._changing():
                self._agreed = self.info() or self._convert()
        return self._agreed

    def _convert(self) -> StoreInfo:
        old = self._root / OLD_LOCK
        with ExitStack() as stack:
            for path in (old, *self._root.glob(".worker-*.lock")):
                if path.is_file():
                    try:
                        stack.enter_context(FileLock(path, 0).acquire())
                    except Timeout:
                        raise StoreBusyError(
                            "a worker of an earlier version holds the store: stop it first"
                        ) from None
            if not old.is_dir():
                old.unlink(missing_ok=True)
                make_folder(old)
            info = StoreInfo(lease_seconds=self._seconds)
            info.write(self._root / INFO)
        return info

    def acquire(self, name: str) -> SoftFileLease:
        """Acquires the lease of a run; the caller releases it. Does not wait.

        Raises Timeout if another process holds it, and as `prepare`.
        """
        duration = self.seconds
        folder = self._root / FOLDER
        if folder.is_symlink():
            raise OSError(f"{FOLDER} is a link: remove it")
        with contextlib.suppress(FileExistsError):
            make_folder(folder)
        mode = inherited(self._root) & 0o660
        lease, seen, since = self._observed.get(name) or (
            SoftFileLease(self.path(name), lease_duration=duration, mode=mode),
            None,
            0.0,
        )
        try:
            try:
                lease.acquire(timeout=0)
            except Timeout:
                now, found = time.monotonic(), identity_of(self.path(name))
                if found != seen:
                    seen, since = found, now
                if now - since < PATIENCE * duration:
                    raise
                _move_aside(self.path(name), found)
                lease.acquire(timeout=0)
        except Timeout:
            self._observed[name] = lease, seen, since
            raise
        self._observed.pop(name, None)
        return lease

    def holder(self, name: str) -> Holder | None:
        """The process named in a run's lease file, even if it has exited; None without a lease file."""
        return SoftFileLease(self.path(name)).owner

    def held(self) -> set[str]:
        """The names of the runs that have a lease file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return {path.stem for path in (self._root / FOLDER).iterdir() if path.suffix == ".lease"}
        return set()

    def at_work_here(self) -> set[str]:
        """The names of the runs that other running processes of this machine hold."""
        found = set()
        for name in self.held():
            holder = self.holder(name)
            if (
                holder is not None
                and holder.pid != os.getpid()
                and _is_here(holder)
                and is_running(holder.pid)
            ):
                found.add(name)
        return found

    def abandoned(self, name: str) -> bool:
        """Whether it is certain that no process holds a run.

        This is so if it has no lease, or if its holder was on this machine and has ended.
        """
        holder = self.holder(name)
        return holder is None or (_is_here(holder) and not is_running(holder.pid))

    def path(self, name: str) -> Path:
        return self._root / FOLDER / f"{name}.lease"


def _move_aside(path: Path, expired: Identity) -> None:
    """Removes an expired lease where filelock cannot: it exchanges two names, which NFS does not support.

    If another process has taken over the lease meanwhile, it is put back. If that fails, that process loses
    the run, and its claim (app/store/claims.py) prevents it from writing.
    """
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.expired")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if identity_of(aside)[1:] != expired[1:]:
            with contextlib.suppress(OSError):
                path.hardlink_to(aside)
        aside.unlink()


def _is_here(holder: Holder) -> bool:
    # after a question mark comes the PID namespace of a container
    return holder.hostname.partition("?")[0] == socket.gethostname()
