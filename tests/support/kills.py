"""Training that is killed at a chosen moment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from app.store import history
from app.store.files import replacing, write_atomic
from app.store.run import Run
from app.store.temporaries import temporary_in
from app.training.trainer import Cadence, train_run
from model.checkpoint import load

# a status at every step, so that its writing is a moment to be killed at too
EVERY_STEP = Cadence(status_seconds=0.0)


def never() -> bool:
    return False


def train(run: Run, should_stop: Callable[[], bool] = never) -> bool:
    with threadpool_limits(1):
        return train_run(run, should_stop, cadence=EVERY_STEP)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class Killer:
    """Ends the program at its n-th change to the disk, before it or with half of its bytes written."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.changes, self.at = 0, at
        append, unlink = history.append, Path.unlink
        patch.setattr("app.training.trainer.write_atomic", self.write)
        patch.setattr("app.store.records.write_atomic", self.write)
        patch.setattr("app.store.history.replacing", self.replace)
        patch.setattr("app.store.history.append", lambda path, records: self.append(append, path, records))
        patch.setattr(Path, "unlink", lambda path, **options: self.unlink(unlink, path, **options))

    def due(self) -> bool:
        self.changes += 1
        return self.changes == self.at

    def write(self, path: Path, data: bytes) -> None:
        if self.due():
            left_over(path.parent).write_bytes(data[: len(data) // 2])
            raise Killed
        write_atomic(path, data)

    def replace(self, path: Path) -> AbstractContextManager[Path]:
        if self.due():
            left_over(path.parent).write_bytes(b"half")
            raise Killed
        return replacing(path)

    def append(self, append: Callable[..., None], path: Path, records: list[history.Record]) -> None:
        if self.due():
            data = b"".join(history.encode(record) for record in records)
            with path.open("ab") as file:
                file.write(data[: len(data) // 2])
            raise Killed
        append(path, records)

    def unlink(self, unlink: Callable[..., None], path: Path, **options: bool) -> None:
        if path.suffix == ".safetensors" and self.due():
            raise Killed
        unlink(path, **options)


def left_over(folder: Path) -> Path:
    """A name as an unfinished file has it whose process is gone."""
    beginning, start, random = temporary_in(folder).name.rsplit("-", 2)
    return folder / f"{beginning}-{int(start) - 1}-{random}"


def assert_readable(run: Run) -> None:
    """What a reader needs: latest.json is not there yet, or names whole files."""
    latest = run.latest()
    for entry in (latest.newest, latest.best) if latest else ():
        assert entry is None or load(run.path / entry.file).digest == entry.digest
