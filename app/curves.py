"""Loss curves as the server shows them: read on from where it stopped, thinned without losing extremes."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.runs import Run
from model import history

Record = dict[str, Any]
Item = TypeVar("Item")


@dataclass
class _Reading:
    """How far a history file was read."""

    inode: int = 0
    offset: int = 0
    records: list[Record] = field(default_factory=list)


class Histories:
    """The records of history files, no line read twice. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: dict[Path, _Reading] = {}

    def read(self, run: Run) -> list[Record]:
        """All whole records of the run's loss curve, oldest first. Reads the disk."""
        path = run.history_path
        with self._lock:
            try:
                with path.open("rb") as file:
                    return list(self._read_on(path, file.fileno()))
            except FileNotFoundError:
                self._readings.pop(path, None)
                return []

    def _read_on(self, path: Path, descriptor: int) -> list[Record]:
        status = os.fstat(descriptor)
        reading = self._readings.get(path)
        # a resumed run replaces its curve by a shorter one: another inode
        if reading is None or reading.inode != status.st_ino or status.st_size < reading.offset:
            reading = self._readings[path] = _Reading(status.st_ino)
        data = os.pread(descriptor, status.st_size - reading.offset, reading.offset)
        whole = data[: data.rfind(b"\n") + 1]
        reading.records += history.decode(whole)
        reading.offset += len(whole)
        return reading.records


@dataclass(frozen=True)
class Curve:
    """What a loss curve shows. Losses in nats per character; steps are updates.

    Attributes:
        points: records of the training, thinned: step, loss, smooth_loss, summed_smooth_loss, seconds, …
        validation: (step, held-out loss) of every measurement, thinned likewise.
        recorded: how many records there were before thinning.
        checkpoints: steps whose weights are kept.
        best: (step, loss) of the best checkpoint.
        baseline: ln K, the loss of guessing among K characters; None where K is not known.
        sequence_length: T of a run that sums its loss over a sequence; it is shown as that sum too.
    """

    run: str
    state: str
    step: int
    steps: int
    cell: str
    points: list[Record]
    validation: list[tuple[int, float]]
    recorded: int
    checkpoints: list[int]
    best: tuple[int, float] | None
    baseline: float | None
    sequence_length: int | None

    @property
    def version(self) -> str:
        """Changes when the picture would."""
        last = self.points[-1]["step"] if self.points else -1
        best = self.best[0] if self.best else -1
        newest = self.checkpoints[-1] if self.checkpoints else -1
        return f"{self.run}-{self.recorded}-{last}-{self.state}-{newest}-{best}"


def read_curve(run: Run, histories: Histories, vocabulary: int | None, limit: int) -> Curve:
    """The curve of a run, of at most about `limit` points. Reads the disk. Raises RunFileError."""
    records = histories.read(run)
    status, latest = run.status, run.latest()
    held_out = [
        (record["step"], record["validation_loss"])
        for record in records
        if record.get("validation_loss") is not None
    ]
    best = latest.best if latest else None
    return Curve(
        run=run.name,
        state=status.state,
        step=status.step,
        steps=status.steps,
        cell=run.config.cell,
        points=thin(records, [_number(record.get("loss")) for record in records], limit),
        validation=thin(held_out, [loss for _, loss in held_out], limit),
        recorded=len(records),
        checkpoints=list(run.checkpoints()),
        best=(best.step, best.loss) if best and best.loss is not None else None,
        baseline=math.log(vocabulary) if vocabulary else None,
        sequence_length=run.config.sequence_length if run.config.reduction == "sum" else None,
    )


def thin(items: list[Item], values: list[float], limit: int) -> list[Item]:
    """About `limit` of `items`: first, last, and of each stretch those of the least and greatest value."""
    if len(items) <= limit:
        return list(items)
    return [items[index] for index in extremes(np.asarray(values), max(1, (limit - 2) // 2))]


def extremes(values: NDArray[np.floating], stretches: int) -> list[int]:
    """Indices, ascending, of the first and last value and of the extremes of `stretches` equal stretches."""
    kept = {0, len(values) - 1}
    for part in np.array_split(np.arange(len(values)), stretches):
        known = part[~np.isnan(values[part])]
        if len(known):
            kept.add(int(known[values[known].argmin()]))
            kept.add(int(known[values[known].argmax()]))
    return sorted(kept)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
