"""Loss curves for the server: read incrementally, and thinned without losing extremes."""

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
KEPT_POINTS = 20_000  # points of a run to which a longer curve is thinned in memory
HELD_POINTS = 200_000  # points of all runs in memory; each takes about half a kilobyte
DRAWN_POINTS = 3000  # points in a picture: more than it has columns
FRESH_SECONDS = 1.0  # minimum time between two readings of a curve


class Curves:
    """A cache of the loss curves of a store. Each line is read once, and a curve at most once a second.

    It reads files, so do not call it in an event loop. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: OrderedDict[Path, _Reading] = OrderedDict()
        self._curves: dict[Path, tuple[float, Curve]] = {}

    def get(self, run: Run) -> Curve:
        """The curve of a run, at most FRESH_SECONDS old; it is read again whenever the run's state changes.

        Raises RunFileError, RunNotFoundError if the run was deleted.
        """
        with self._lock:
            read_at, curve = self._curves.get(run.path, (-math.inf, None))
            now, identity = time.monotonic(), f"{run.spec.created!r} {run.spec.corpus_sha256}"
            if curve is not None and curve.identity != identity:
                self._forget(run.path)  # another run: its file may have the same inode
                curve = None
            if curve is None or now - read_at > FRESH_SECONDS or curve.state != run.standing.state:
                curve = self._read(run, identity)
                self._curves[run.path] = (now, curve)
                self._release(run.path)
            return curve

    def _release(self, read: Path) -> None:
        """Drops deleted runs, and the least recently read ones while there are more than HELD_POINTS."""
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
        """The points of a run in memory, and how many it has recorded. Raises RunFileError."""
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
        # a resumed run replaces its file by a shorter one, with another inode
        if reading is None or reading.inode != status.st_ino or status.st_size < reading.offset:
            reading = self._readings[path.parent] = _Reading(status.st_ino)
        while reading.offset < status.st_size:
            data = os.pread(descriptor, min(PIECE, status.st_size - reading.offset), reading.offset)
            whole = data[: data.rfind(b"\n") + 1]
            if not whole and len(data) < PIECE:
                break  # the line is still being written
            reading.take(whole or data)
        return reading


def _updates_per_epoch(run: Run) -> float:
    config = run.config
    trained = run.spec.characters * (1 - config.validation_fraction)
    return trained / (config.sequence_length * config.streams)


@dataclass
class _Reading:
    """The points read from a history file up to `offset`, in bytes."""

    inode: int = 0
    offset: int = 0
    recorded: int = 0
    records: list[Record] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        """Adds the points in `data`, the next bytes of the file, and thins them if there are too many."""
        records = history.POINTS.decode(data)
        self.offset += len(data)
        self.recorded += len(records)
        self.records += records
        if len(self.records) > 2 * KEPT_POINTS:
            self.records = thinned(self.records, KEPT_POINTS)


@dataclass(frozen=True)
class Curve:
    """The loss curve of a run. Losses are in nats per character; steps are updates.

    Attributes:
        points: the recorded points: step, loss, smooth_loss, validation_loss, seconds, …
        recorded: the number of recorded points; `points` has fewer if the curve was thinned.
        checkpoints: the steps of the checkpoints on disk.
        best: (step, loss) of the best checkpoint.
        baselines: losses of the uniform, unigram and 5-gram models on the same text, by name; empty until
            they are measured.
        updates_per_epoch: updates per pass through the training text.
        characters_per_update: characters read in each update.
        rollbacks: steps that the run was rolled back to.
        overfitting_since: the step of the lowest held-out loss if the run is overfitting, otherwise None.
        warnings: messages about the rollbacks and the overfitting.
        sequence_length: T if the run sums its loss over a sequence, so that the sum is shown too; otherwise
            None.
        identity: differs between runs that had the same name at different times.
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
        """A string that changes whenever the picture would; used as an ETag."""
        last = self.points[-1]["step"] if self.points else -1
        newest = self.checkpoints[-1] if self.checkpoints else -1
        best = self.best[0] if self.best else -1
        marks = f"{len(self.baselines)}-{len(self.rollbacks)}-{self.overfitting_since}"
        identity = hashlib.sha256(self.identity.encode()).hexdigest()[:12]
        return f"{self.run}-{identity}-{self.state}-{self.step}-{last}-{newest}-{best}-{marks}"

    def drawn(self) -> Curve:
        """The curve, thinned for a picture."""
        return self.thinned(DRAWN_POINTS)

    def thinned(self, limit: int) -> Curve:
        """The curve with at most about `limit` points; see `thinned`."""
        return self if len(self.points) <= limit else replace(self, points=thinned(self.points, limit))


def thinned(points: list[Record], limit: int) -> list[Record]:
    """At most about `limit` of the points, with the local extremes of the training and held-out loss."""
    losses = np.array([_number(point.get("loss")) for point in points])
    held_out = np.array([_number(point.get("validation_loss")) for point in points])
    measured = np.flatnonzero(~np.isnan(held_out))
    kept = set(extremes(losses, max(1, limit // 3)))
    kept.update(measured[extremes(held_out[measured], max(1, limit // 6))].tolist() if len(measured) else ())
    return [points[index] for index in sorted(kept)]


def extremes(values: NDArray[np.floating], parts: int) -> list[int]:
    """The indices of the first and last value, and of the minimum and maximum of each of `parts` equal parts.

    NaN values are left out of the extremes. The indices are in ascending order.
    """
    kept = {0, len(values) - 1}
    for part in np.array_split(np.arange(len(values)), min(parts, len(values))):
        known = part[~np.isnan(values[part])]
        if len(known):
            kept.add(int(known[values[known].argmin()]))
            kept.add(int(known[values[known].argmax()]))
    return sorted(kept)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
