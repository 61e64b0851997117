"""The fence: every change to the files of a run in training passes through the claim of its lease's holder.

A process that is stopped, or cut off, loses its lease without a sign, and goes on where it was when it wakes.
So a claim reads its lease before each change. That alone would leave a gap, between the look and the change.
To close it, a file reaches its place, or leaves it, by one rename out of, or into, a folder that the claim
has in the run's; the next holder removes that folder before it reads anything of the run. A change of a
holder that has lost its lease therefore comes before the next holder's first look, or fails. What is added to
the end of a file is checked once the file is open: the next holder puts another in its place.
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
    """Another process holds the run now, or may: nothing more of it may be written here."""


class Changes:
    """How the files of a run that nobody else can train are changed: one that is being made, say."""

    def replacing(self, path: Path) -> AbstractContextManager[Path]:
        """A temporary name whose file takes the place of `path`, as `files.replacing`."""
        return replacing(path)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises LeaseLostError if the right to change the run is lost."""


class Claim(Changes):
    """The changes of a lease's holder to the run in the folder `run`.

    Each raises LeaseLostError once the lease is lost, and OSError. Raises FileNotFoundError if there is no
    run, OSError.
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
        """A missing claim's folder is the loss of the lease, unless the whole run is gone."""
        try:
            yield
        except FileNotFoundError:
            if self._run.is_dir() and not self._folder.is_dir():
                raise LeaseLostError(f"another process has taken over run {self._run.name!r}") from None
            raise

    def end(self) -> None:
        """Leave nothing of the claim in the run's folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _evict_others(run: Path) -> None:
    """End the claims of earlier holders, whether their processes still run or not."""
    with os.scandir(run) as entries:
        found = [Path(entry.path) for entry in entries if _is_claim(entry)]
    for folder in found:
        grave = temporary_in(run)
        with suppress(FileNotFoundError):  # its holder was just ending it
            folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


def _is_claim(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(TEMPORARY_PREFIX) and entry.is_dir(follow_symlinks=False)
