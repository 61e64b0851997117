"""Training that is killed at a chosen point."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from app.store import history
from app.store.claims import Claim
from app.store.run import Run
from app.store.temporaries import temporary_in
from app.training.trainer import Cadence, train_run
from model.checkpoint import load

Check = Callable[[], None]
Replacing = Callable[[Claim, Path], AbstractContextManager[Path]]

# a status at every step, so that a kill can also happen while it is written
EVERY_STEP = Cadence(status_seconds=0.0)


def never() -> bool:
    return False


def train(run: Run, should_stop: Callable[[], bool] = never) -> bool:
    with threadpool_limits(1):
        return train_run(run, should_stop, cadence=EVERY_STEP)


class Killed(BaseException):
    """Simulates SIGKILL: nothing may catch it."""


class Killer:
    """Ends the program at its n-th change to a run: before the change, or with half of its bytes written."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.changes, self.at = 0, at
        replacing, append, remove = Claim.replacing, history.append, Claim.remove
        patch.setattr(Claim, "replacing", lambda claim, path: self.replace(replacing, claim, path))
        patch.setattr(history, "append", lambda *arguments: self.append(append, *arguments))
        patch.setattr(Claim, "remove", lambda claim, path: self.remove(remove, claim, path))

    def due(self) -> bool:
        self.changes += 1
        return self.changes == self.at

    def replace(self, replacing: Replacing, claim: Claim, path: Path) -> AbstractContextManager[Path]:
        if self.due():
            left_over(path.parent).write_bytes(b"half")
            raise Killed
        return replacing(claim, path)

    def append(
        self, append: Callable[..., None], path: Path, records: list[history.Record], check: Check
    ) -> None:
        if self.due():
            data = b"".join(history.encode(record) for record in records)
            with path.open("ab") as file:
                file.write(data[: len(data) // 2])
            raise Killed
        append(path, records, check)

    def remove(self, remove: Callable[[Claim, Path], None], claim: Claim, path: Path) -> None:
        if path.suffix == ".safetensors" and self.due():
            raise Killed
        remove(claim, path)


def left_over(folder: Path) -> Path:
    """The path of an unfinished file whose process no longer exists."""
    beginning, start, random = temporary_in(folder).name.rsplit("-", 2)
    return folder / f"{beginning}-{int(start) - 1}-{random}"


def assert_readable(run: Run) -> None:
    """Check what a reader relies on: latest.json is missing, or names complete files."""
    latest = run.latest()
    for entry in (latest.newest, latest.best) if latest else ():
        assert entry is None or load(run.path / entry.file).digest == entry.digest
