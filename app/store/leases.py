"""Who may change a run: one lease a run, held by the process that trains or deletes it.

    checkpoints/.store.json           how runs are held (StoreInfo): agreed on by all who work on the store
                .leases/<run>.lease   there while a process holds the run; names its host and process
                .worker.lock/         a folder in place of an earlier version's lock, which stops that version

A lease is kept alive by a thread of its holder. Another process takes it over once it has seen the lease
unchanged for its whole duration, by its own monotonic clock: no two machines' clocks are ever compared. A
holder that has ended on the same machine is replaced immediately.
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

from app.store.files import Identity, identity_of, inherited, make_folder
from app.store.records import Record
from app.store.temporaries import is_running
from model.errors import CharloomError

LEASE_SECONDS = 30.0
INFO = ".store.json"
FOLDER = ".leases"
OLD_LOCK = ".worker.lock"
PATIENCE = 1.1  # times its duration after which a lease that filelock has not taken over is moved aside


class StoreBusyError(CharloomError):
    """A worker of an earlier version holds the store."""


class StoreInfo(Record):
    """How the runs of a store are held; written by the first process that takes a lease."""

    locks: Literal["leases"] = "leases"
    lease_seconds: Annotated[float, Field(ge=0.5, le=3600)] = LEASE_SECONDS


class Leases:
    """The leases of the store at `root`. `seconds` is their duration where the store has none yet."""

    def __init__(
        self, root: Path, seconds: float, changing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._root, self._seconds, self._changing = root, seconds, changing
        self._agreed: StoreInfo | None = None
        # an observation of another's lease is kept until the next try, or it would never expire
        self._observed: dict[str, tuple[SoftFileLease, Identity | None, float]] = {}

    def info(self) -> StoreInfo | None:
        """How the store's runs are held; None if no lease was ever taken. Raises RunFileError."""
        with contextlib.suppress(FileNotFoundError):
            return StoreInfo.read(self._root / INFO)
        return None

    @property
    def seconds(self) -> float:
        """The duration of the store's leases. Raises as `prepare`."""
        return self.prepare().lease_seconds

    def prepare(self) -> StoreInfo:
        """Make sure that all who work on the store use leases; a store of an earlier version becomes one.

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
                            f"a worker of an earlier version holds {self._root}: stop it first"
                        ) from None
            if not old.is_dir():
                old.unlink(missing_ok=True)
                make_folder(old)
            info = StoreInfo(lease_seconds=self._seconds)
            info.write(self._root / INFO)
        return info

    def acquire(self, name: str) -> SoftFileLease:
        """The lease of a run, to be released. Raises Timeout at once if another holds it, OSError."""
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
        """Who holds the lease of a run, or held it last and could not release it; None without any."""
        return SoftFileLease(self.path(name)).owner

    def held(self) -> set[str]:
        """The names of the runs that have a holder."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return {path.stem for path in (self._root / FOLDER).iterdir() if path.suffix == ".lease"}
        return set()

    def at_work_here(self) -> set[str]:
        """The names of the runs that other living processes of this machine hold."""
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
        """Whether it is certain now that nobody holds a run: there is no lease, or its process is gone."""
        holder = self.holder(name)
        return holder is None or (_is_here(holder) and not is_running(holder.pid))

    def path(self, name: str) -> Path:
        return self._root / FOLDER / f"{name}.lease"


def _move_aside(path: Path, expired: Identity) -> None:
    """Make room for a lease where filelock cannot: it exchanges two names, which NFS has no call for.

    Another process may have been quicker: then its lease is put back. Where that fails it has lost the run,
    and its claim (app/store/claims.py) keeps it from writing.
    """
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.expired")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if identity_of(aside)[1:] != expired[1:]:
            with contextlib.suppress(OSError):
                path.hardlink_to(aside)
        aside.unlink()


def _is_here(holder: Holder) -> bool:
    # behind a question mark is the process namespace of a container
    return holder.hostname.partition("?")[0] == socket.gethostname()
