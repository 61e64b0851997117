"""Loss curves as the server shows them: read on from where it stopped, thinned without losing extremes."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import RunFileError
from app.store import history
from app.store.files import open_regular
from app.store.run import Run

Record = dict[str, Any]

PIECE = 1 << 20
KEPT_POINTS = 20_000  # of one run, at least, where it has recorded more
HELD_POINTS = 200_000  # of all runs together; each takes about half a kilobyte
DRAWN_POINTS = 3000  # of a picture: more than it has columns
FRESH_SECONDS = 1.0  # however many people look, a curve is read and drawn this often at most


class Curves:
    """The curves of a store's runs, no line read twice, none read more than once a second.

    Reads the disk: not for an event loop. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: OrderedDict[Path, _Reading] = OrderedDict()
        self._curves: dict[Path, tuple[float, Curve]] = {}

    def get(self, run: Run) -> Curve:
        """The curve of a run: at most a second old, and whole once the run's state says that it has ended.

        Raises RunFileError, FileNotFoundError if it is gone.
        """
        with self._lock:
            read_at, curve = self._curves.get(run.path, (-math.inf, None))
            now, identity = time.monotonic(), f"{run.spec.created!r} {run.spec.corpus_sha256}"
            if curve is not None and curve.identity != identity:
                self._forget(run.path)  # the file of another run may have got the same inode
                curve = None
            if curve is None or now - read_at > FRESH_SECONDS or curve.state != run.standing.state:
                curve = self._read(run, identity)
                self._curves[run.path] = (now, curve)
                self._release(run.path)
            return curve

    def _release(self, read: Path) -> None:
        """Forget deleted runs, and of the others the ones read longest ago where too many points are held."""
        if read in self._readings:
            self._readings.move_to_end(read)
        held = sum(len(reading.records) for reading in self._readings.values())
        for path in list(self._curves):
            if path != read and not path.is_dir():
                held -= self._forget(path)
        for path in list(self._readings):
            if held > HELD_POINTS and path != read:
                held -= self._forget(path)

    def _forget(self, path: Path) -> int:
        self._curves.pop(path, None)
        reading = self._readings.pop(path, None)
        return len(reading.records) if reading else 0

    def _read(self, run: Run, identity: str) -> Curve:
        status, latest = run.standing, run.latest()
        best = latest.best if latest else None
        points, recorded = self._points(run)
        return Curve(
            run=run.name,
            identity=identity,
            state=status.state,
            step=status.step,
            steps=status.steps,
            cell=run.config.cell,
            points=points,
            recorded=recorded,
            checkpoints=list(run.checkpoints()),
            best=(best.step, best.loss) if best and best.loss is not None else None,
            baselines=run.baselines(),
            sequence_length=run.config.sequence_length if run.config.reduction == "sum" else None,
            updates_per_epoch=_updates_per_epoch(run),
            characters_per_update=run.config.sequence_length * run.config.streams,
            rollbacks=tuple(status.rollbacks),
            overfitting_since=status.overfitting_since,
            warnings=tuple(status.warnings),
        )

    def _points(self, run: Run) -> tuple[list[Record], int]:
        """The points of a run that are held, and how many it has recorded. Raises RunFileError."""
        path = run.history_path
        try:
            with open_regular(path) as file:
                reading = self._read_on(path, file.fileno())
                return list(reading.records), reading.recorded
        except FileNotFoundError:
            self._readings.pop(path.parent, None)
            return [], 0
        except OSError as error:
            reason = error.strerror or error
            raise RunFileError(f"history.jsonl of run {run.name!r} cannot be read: {reason}") from error

    def _read_on(self, path: Path, descriptor: int) -> _Reading:
        status = os.fstat(descriptor)
        reading = self._readings.get(path.parent)
        # a resumed run replaces its curve by a shorter one: another inode
        if reading is None or reading.inode != status.st_ino or status.st_size < reading.offset:
            reading = self._readings[path.parent] = _Reading(status.st_ino)
        while reading.offset < status.st_size:
            data = os.pread(descriptor, min(PIECE, status.st_size - reading.offset), reading.offset)
            whole = data[: data.rfind(b"\n") + 1]
            if not whole and len(data) < PIECE:
                break  # a line that is being written
            reading.take(whole or data)
        return reading


def _updates_per_epoch(run: Run) -> float:
    config = run.config
    trained = run.spec.characters * (1 - config.validation_fraction)
    return trained / (config.sequence_length * config.streams)


@dataclass
class _Reading:
    """How far a history file was read."""

    inode: int = 0
    offset: int = 0
    recorded: int = 0
    records: list[Record] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        """Read on by `data`; of very many points only as many are kept as any picture needs."""
        records = history.POINTS.decode(data)
        self.offset += len(data)
        self.recorded += len(records)
        self.records += records
        if len(self.records) > 2 * KEPT_POINTS:
            self.records = thinned(self.records, KEPT_POINTS)


@dataclass(frozen=True)
class Curve:
    """What a loss curve shows. Losses in nats per character; steps are updates.

    Attributes:
        points: records of the training: step, loss, smooth_loss, validation_loss, seconds, …
        recorded: how many of them the run has written; of very many, `points` are a part.
        checkpoints: steps whose weights are kept.
        best: (step, loss) of the best checkpoint.
        baselines: losses of models without a network on the same text: uniform, unigram, 5-gram; empty until
            they are measured.
        updates_per_epoch: updates in which the text to learn is read once.
        characters_per_update: characters of text that one update reads.
        rollbacks: steps that the run went back to when its loss exploded.
        overfitting_since: the step of the lowest held-out loss, if that has risen since.
        warnings: both in words.
        sequence_length: T of a run that sums its loss over a sequence; it is shown as that sum too.
        identity: tells the run from an earlier or later one of the same name.
    """

    run: str
    state: str
    step: int
    steps: int
    cell: str
    points: list[Record]
    checkpoints: list[int]
    best: tuple[int, float] | None
    baselines: dict[str, float]
    sequence_length: int | None
    recorded: int = 0
    updates_per_epoch: float | None = None
    rollbacks: tuple[int, ...] = ()
    overfitting_since: int | None = None
    characters_per_update: int = 0
    warnings: tuple[str, ...] = ()
    identity: str = ""

    @property
    def version(self) -> str:
        """Changes when the picture would."""
        last = self.points[-1]["step"] if self.points else -1
        newest = self.checkpoints[-1] if self.checkpoints else -1
        best = self.best[0] if self.best else -1
        marks = f"{len(self.baselines)}-{len(self.rollbacks)}-{self.overfitting_since}"
        identity = hashlib.sha256(self.identity.encode()).hexdigest()[:12]
        return f"{self.run}-{identity}-{self.state}-{self.step}-{last}-{newest}-{best}-{marks}"

    def drawn(self) -> Curve:
        """The same with as many points as a picture can show."""
        return self.thinned(DRAWN_POINTS)

    def thinned(self, limit: int) -> Curve:
        """The same with about `limit` points at most, the extremes of both losses among them."""
        return self if len(self.points) <= limit else replace(self, points=thinned(self.points, limit))


def thinned(points: list[Record], limit: int) -> list[Record]:
    """About `limit` of the points at most, the extremes of both losses among them."""
    losses = np.array([_number(point.get("loss")) for point in points])
    held_out = np.array([_number(point.get("validation_loss")) for point in points])
    measured = np.flatnonzero(~np.isnan(held_out))
    kept = set(extremes(losses, max(1, limit // 3)))
    kept.update(measured[extremes(held_out[measured], max(1, limit // 6))].tolist() if len(measured) else ())
    return [points[index] for index in sorted(kept)]


def extremes(values: NDArray[np.floating], stretches: int) -> list[int]:
    """Indices, ascending, of the first and last value and of the extremes of `stretches` equal stretches."""
    kept = {0, len(values) - 1}
    for part in np.array_split(np.arange(len(values)), min(stretches, len(values))):
        known = part[~np.isnan(values[part])]
        if len(known):
            kept.add(int(known[values[known].argmin()]))
            kept.add(int(known[values[known].argmax()]))
    return sorted(kept)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
