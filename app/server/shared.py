"""What the processes of one server share: a private directory that exists while they run."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from limits.storage import MemoryStorage

MEMORY_FOLDER = Path("/dev/shm")  # in memory, if the system has it  # noqa: S108
LONGEST_WAIT = 1.0  # seconds to wait for the lock of another process
CLEARING_SECONDS = 60.0


@dataclass(frozen=True)
class Shared:
    """The view of one process.

    Attributes:
        folder: directory of the shared files.
        number: number of this process, from 0; a process that replaces another keeps its number.
        processes: number of processes.
    """

    folder: Path
    number: int
    processes: int

    @property
    def counts(self) -> Path:
        """The counts of the rate limit."""
        return self.folder / "counts.sqlite"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics"

    def places(self, name: str) -> Path:
        """The file of the slots of one kind (`app.slots.Places`)."""
        return self.folder / f"{name}.places"

    def results(self, name: str) -> Path:
        """The directory of the results of one kind of helper (`app.reports.helper.Results`)."""
        return self.folder / name


def nowhere(name: str) -> None:
    """Stands in for `places` and `results` if one process is the whole server."""


@contextmanager
def shared_folder(processes: int) -> Iterator[list[Shared]]:
    """A `Shared` for each process; the directory is removed after the block. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="charloom-", dir=_memory(), ignore_cleanup_errors=True) as name:
        shared = [Shared(Path(name), number, processes) for number in range(processes)]
        for folder in (shared[0].metrics, shared[0].results("pictures"), shared[0].results("gradchecks")):
            folder.mkdir()
        make_counts(shared[0].counts)
        yield shared


def _memory() -> Path | None:
    """MEMORY_FOLDER if it is writable, otherwise None: the system's default."""
    try:
        tempfile.TemporaryFile(dir=MEMORY_FOLDER).close()
    except OSError:
        return None
    return MEMORY_FOLDER


def make_counts(path: Path) -> None:
    """Create the empty file of `SharedCounts`, before any process uses it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("CREATE TABLE counts (key TEXT PRIMARY KEY, count INTEGER, until REAL) WITHOUT ROWID")


class SharedCounts(MemoryStorage):
    """A storage for `limits` whose counts are in a file that several processes share.

    The windows are those of the library's MemoryStorage, which calls these methods for each count. Each
    change is one SQL statement, so a killed process leaves no lock and no partial change.
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
        """The count that a statement returns, or 0. Raises OSError."""
        try:
            rows = self._file.execute(statement, {"key": key, "now": time.time(), **values}).fetchall()
        except sqlite3.OperationalError as error:
            raise OSError(f"the texts of the rate limit cannot be counted: {error}; try again") from error
        return int(rows[0][0]) if rows else 0
