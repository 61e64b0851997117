"""What several processes that are one server share: a private folder, for as long as they run."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from limits.storage import MemoryStorage

MEMORY_FOLDER = Path("/dev/shm")  # memory without a disk behind it, where the system has it  # noqa: S108
LONGEST_WAIT = 1.0  # seconds that a process waits for others that count
CLEARING_SECONDS = 60.0


@dataclass(frozen=True)
class Shared:
    """One process's part of what is shared.

    Attributes:
        folder: for files that only these processes use.
        number: of this process, from 0; one that replaces another has its number.
        processes: how many there are.
    """

    folder: Path
    number: int
    processes: int

    @property
    def counts(self) -> Path:
        """Of the rate limit."""
        return self.folder / "counts.sqlite"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics"

    def places(self, name: str) -> Path:
        """The file of the places of one kind (`app.slots.Places`)."""
        return self.folder / f"{name}.places"

    def results(self, name: str) -> Path:
        """The folder of the results of one kind of helper (`app.reports.helper.Results`)."""
        return self.folder / name


def nowhere(name: str) -> None:
    """Of a process that is the whole server: it shares nothing."""


@contextmanager
def shared_folder(processes: int) -> Iterator[list[Shared]]:
    """What each of the processes gets; the folder is gone after the block. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="charloom-", dir=_memory(), ignore_cleanup_errors=True) as name:
        shared = [Shared(Path(name), number, processes) for number in range(processes)]
        for folder in (shared[0].metrics, shared[0].results("pictures"), shared[0].results("gradchecks")):
            folder.mkdir()
        make_counts(shared[0].counts)
        yield shared


def _memory() -> Path | None:
    """None is the system's own choice."""
    try:
        tempfile.TemporaryFile(dir=MEMORY_FOLDER).close()
    except OSError:
        return None
    return MEMORY_FOLDER


def make_counts(path: Path) -> None:
    """An empty file for `SharedCounts`, by one process before the others use it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("CREATE TABLE counts (key TEXT PRIMARY KEY, count INTEGER, until REAL) WITHOUT ROWID")


class SharedCounts(MemoryStorage):
    """The counts of `limits`, in a file that several processes use; its windows are those of the library's
    own storage, which asks this for each number.

    Each change is one statement, so a process that is killed leaves no lock and no half of a change.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = sqlite3.connect(path, LONGEST_WAIT, isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA synchronous = OFF")  # the file does not outlive the processes
        self._clear_at = 0.0

    def get(self, key: str) -> int:
        return self._count("SELECT count FROM counts WHERE key = :key AND until > :now", key)

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        if (now := time.time()) >= self._clear_at:
            self._clear_at = now + CLEARING_SECONDS
            self._count("DELETE FROM counts WHERE until <= :now RETURNING count", key)
        return self._count(
            "INSERT INTO counts VALUES (:key, :amount, :now + :expiry) ON CONFLICT (key) DO UPDATE SET "
            "count = iif(until > :now, count, 0) + :amount, until = iif(until > :now, until, :now + :expiry) "
            "RETURNING count",
            key,
            amount=amount,
            expiry=expiry,
        )

    def decr(self, key: str, amount: int = 1) -> int:
        change = "UPDATE counts SET count = max(0, count - :amount) WHERE key = :key RETURNING count"
        return self._count(change, key, amount=amount)

    def _count(self, statement: str, key: str, **values: float) -> int:
        """The count that a statement returns, 0 if none. Raises OSError."""
        try:
            rows = self._file.execute(statement, {"key": key, "now": time.time(), **values}).fetchall()
        except sqlite3.OperationalError as error:
            raise OSError(f"the texts of the rate limit cannot be counted: {error}; try again") from error
        return int(rows[0][0]) if rows else 0
