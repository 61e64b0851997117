"""Fencing: the holder of a run's lease changes the run's files only through a claim.

A process that is suspended or cut off from the store loses its lease without noticing, and continues when it
wakes. So a claim checks its lease before each change. That leaves a race between the check and the change. To
close it, the claim has a directory inside the run's, and a file is put in place or removed with a single
rename out of or into that directory. The next holder removes the directory before it reads the run. A late
change of the previous holder therefore happens before that, or fails. An append checks the lease after it has
opened the file, because the next holder replaces the file by another one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLease

from app.store.files import make_folder, replacing
from app.store.temporaries import TEMPORARY_PREFIX, temporary_in


class LeaseLostError(Exception):
    """This process has lost the lease of the run and must not write to it any more."""


class Changes:
    """Changes to the files of a run without a lease: for a run that no other process can change."""

    def replacing(self, path: Path) -> AbstractContextManager[Path]:
        """A temporary file that replaces `path`; see `files.replacing`."""
        return replacing(path)

    def remove(self, path: Path) -> None:
        """Removes a file if it exists."""
        path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises LeaseLostError if this process may no longer change the run."""


class Claim(Changes):
    """Changes to the files of the run in directory `run`, by the holder of its lease.

    All methods raise LeaseLostError once the lease is lost, and OSError. The constructor ends the claims of
    earlier holders; it raises FileNotFoundError if there is no such run, and OSError.
    """

    def __init__(self, run: Path, lease: SoftFileLease) -> None:
        self._run, self._lease, self._token = run, lease, lease.token
        _evict_others(run)
        self._folder = temporary_in(run)
        make_folder(self._folder)

    def check(self) -> None:
        owner = self._lease.owner
        if self._token is None or owner is None or owner.token != self._token:
            now = f"pid {owner.pid} on {owner.hostname} has it" if owner else "it is deleted"
            raise LeaseLostError(f"the lease of run {self._run.name!r} was lost: {now}")

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        with self._noticing_eviction(), replacing(path, self._folder, self.check) as temporary:
            yield temporary

    def remove(self, path: Path) -> None:
        self.check()
        grave = temporary_in(self._folder)
        with self._noticing_eviction():
            try:
                path.rename(grave)
            except FileNotFoundError:
                if not self._folder.is_dir():
                    raise
        grave.unlink(missing_ok=True)

    @contextmanager
    def _noticing_eviction(self) -> Iterator[None]:
        """Turns FileNotFoundError into LeaseLostError if the claim's directory is gone but the run is not."""
        try:
            yield
        except FileNotFoundError:
            if self._run.is_dir() and not self._folder.is_dir():
                raise LeaseLostError(f"another process has taken over run {self._run.name!r}") from None
            raise

    def end(self) -> None:
        """Removes the claim's directory."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _evict_others(run: Path) -> None:
    """Ends the claims of earlier holders, whose processes may still be running."""
    with os.scandir(run) as entries:
        found = [Path(entry.path) for entry in entries if _is_claim(entry)]
    for folder in found:
        grave = temporary_in(run)
        with suppress(FileNotFoundError):  # its holder has just ended it
            folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


def _is_claim(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(TEMPORARY_PREFIX) and entry.is_dir(follow_symlinks=False)
