"""One run of the store: its directory and its files."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from app.errors import RunFileError, RunNotFoundError
from app.store import history
from app.store.claims import Changes, Claim
from app.store.files import Unchanged, is_regular, open_regular, read_regular
from app.store.records import Baselines, Control, Latest, Record, RunSpec, Status
from model.config import RunConfig

RECORDS = ("latest.json", "status.json", "control.json", "baselines.json")
CORPUS_LIMIT = 1 << 30
MAX_SAMPLES = 1000  # read together
FILES = ("corpus.txt", "history.jsonl", "samples.jsonl", *RECORDS)
UNSETTLED = 2.0  # seconds after a change in which another one may have the same time stamp
STEP_FILE = re.compile(r"step-([0-9]{9,12})\.safetensors", re.ASCII)
KEPT_FILE = re.compile(r"kept-([0-9]{9,12})\.safetensors", re.ASCII)

AnyRecord = TypeVar("AnyRecord", bound=Record)


class Text(NamedTuple):
    """A text's file name (for people), the sha256 of its UTF-8 form, and its number of characters."""

    name: str
    sha256: str
    characters: int


class Files(NamedTuple):
    """What is in a run's directory.

    Attributes:
        steps: of the checkpoint files, including kept ones, ascending.
        samples: number of samples.
        faults: messages about files that cannot be used.
    """

    steps: tuple[int, ...]
    samples: int
    faults: tuple[str, ...] = ()


class Run:
    """One run of a store.

    Any process may read it. To change its files, except with `write_control`, get the run from
    `RunStore.holding`, which gives it a claim.
    """

    def __init__(self, path: Path, claim: Claim | None = None) -> None:
        self.path = path
        self.claim = claim
        self._changes = claim or Changes()
        self.name = path.name
        self._folder = os.fspath(path)  # for scans of hundreds of runs, where joining Paths is too slow
        self._records: Unchanged[Record | None] = Unchanged()
        self._files: tuple[tuple[int, int], Files] | None = None
        self._seen: tuple[tuple[int, int], float] | None = None
        self._heartbeat: tuple[float, float] | None = None

    def __repr__(self) -> str:
        return f"Run({self.name!r})"

    @cached_property
    def spec(self) -> RunSpec:
        """The specification. Raises RunNotFoundError without run.json, RunFileError if it cannot be used."""
        try:
            spec = RunSpec.read(self.path / "run.json")
        except FileNotFoundError as error:
            raise RunNotFoundError(
                f"{self.name!r} is a directory without a run: it has no run.json"
            ) from error
        if spec.name != self.name:
            raise RunFileError(f"directory {self.name!r} holds a run named {spec.name!r}: rename it to that")
        return spec

    @property
    def config(self) -> RunConfig:
        return self.spec.config

    @property
    def status(self) -> Status:
        """The status that the worker wrote last; "queued" if status.json is missing or damaged."""
        try:
            return self._read("status.json", Status)
        except FileNotFoundError:
            return Status(steps=self.spec.steps)
        except RunFileError as error:
            return Status(steps=self.spec.steps, reason=str(error))

    def silence(self) -> float:
        """Seconds since this process last saw a new status, independent of the worker's clock."""
        heartbeat, now = self.status.heartbeat, time.monotonic()
        if self._heartbeat is None or self._heartbeat[0] != heartbeat:
            self._heartbeat = heartbeat, now
        return now - self._heartbeat[1]

    @property
    def standing(self) -> Status:
        """The status for users: the worker's last one, with the requests made since applied."""
        return self.control.applied_to(self.status)

    @property
    def control(self) -> Control:
        """The requests for the run; none if control.json is missing or damaged."""
        try:
            return self._read("control.json", Control)
        except (FileNotFoundError, RunFileError):
            return Control()

    def write_control(self, control: Control) -> None:
        """For servers; the caller must hold the store's `changing` lock. Raises OSError."""
        control.write(self.path / "control.json")

    def _read(self, name: str, kind: type[AnyRecord]) -> AnyRecord:
        """A record, from the cache unless its file has changed. Raises as `Record.read`."""

        def read() -> Record | None:
            try:
                return kind.read(self.path / name)
            except FileNotFoundError:
                return None  # cached too, so that a missing file costs only an lstat

        record = self._records.get(name, f"{self._folder}/{name}", read)
        if record is None:
            raise FileNotFoundError(name)
        return cast(AnyRecord, record)

    def write(self, path: Path, data: bytes) -> None:
        """Replaces a file of the run. Raises OSError, LeaseLostError."""
        with self._changes.replacing(path) as temporary:
            temporary.write_bytes(data)

    def append(self, path: Path, records: Iterable[dict[str, Any]]) -> None:
        """Appends records to the loss curve or the samples. Raises OSError, LeaseLostError."""
        history.append(path, records, self._changes.check)

    def remove(self, path: Path) -> None:
        """Removes a file of the run if it exists. Raises OSError, LeaseLostError."""
        self._changes.remove(path)

    def cut_back(self, step: int) -> None:
        """Removes the points and samples after `step`. Raises OSError, LeaseLostError."""
        history.POINTS.cut_back(self.history_path, step, self._changes.replacing)
        history.SAMPLES.cut_back(self.samples_path, step, self._changes.replacing)

    def check(self) -> None:
        """Raises LeaseLostError if this process may no longer change the run."""
        self._changes.check()

    def write_status(self, status: Status) -> None:
        """Raises OSError, LeaseLostError, RunFileError."""
        self._write("status.json", status)

    def write_baselines(self, losses: dict[str, float]) -> None:
        """Raises OSError, LeaseLostError, RunFileError."""
        self._write(self.baselines_path.name, Baselines(losses=losses))

    def _write(self, name: str, record: Record) -> None:
        self.write(self.path / name, record.encoded(name))

    def text(self) -> str:
        """The text of the run. Raises RunFileError if it cannot be read or has changed."""
        path = self.path / "corpus.txt"
        try:
            data = read_regular(path, CORPUS_LIMIT)
        except OSError as error:
            reason = error.strerror or error
            raise RunFileError(f"corpus.txt of run {self.name!r} cannot be read: {reason}") from error
        if hashlib.sha256(data).hexdigest() != self.spec.corpus_sha256:
            raise RunFileError(
                f"corpus.txt in {self.name!r} is not the text of this run: restore that text, or create a "
                f"new run"
            )
        return data.decode("utf-8")

    def text_end(self, characters: int) -> str:
        """The last characters of the text, read without the rest and not verified. Raises RunFileError."""
        path = self.path / "corpus.txt"
        try:
            with open_regular(path) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * characters))
                data = file.read()
        except OSError as error:
            reason = error.strerror or error
            raise RunFileError(f"{path.name} of run {self.name!r} cannot be read: {reason}") from error
        return data.decode("utf-8", "ignore")[-characters:]  # the data may begin inside a character

    def history(self) -> list[dict[str, Any]]:
        """The recorded points of the loss curve, oldest first. Raises OSError."""
        return history.POINTS.read(self.history_path)

    def samples(self) -> list[dict[str, Any]]:
        """The newest samples, oldest first. Raises RunFileError."""
        return [sample for _, sample in self.samples_after(0)]

    def samples_after(self, number: int, limit: int = MAX_SAMPLES) -> list[tuple[int, dict[str, Any]]]:
        """The newest samples after number `number`, at most `limit`, by number. Raises RunFileError."""
        try:
            return history.SAMPLES.newest(self.samples_path, number, limit)
        except OSError as error:
            reason = error.strerror or error
            raise RunFileError(f"samples.jsonl of run {self.name!r} cannot be read: {reason}") from error

    def baselines(self) -> dict[str, float]:
        """The losses of the baseline models by name; empty until the worker has measured them."""
        try:
            return dict(Baselines.read(self.baselines_path).losses)
        except (FileNotFoundError, RunFileError):  # the worker measures them again
            return {}

    @property
    def baselines_path(self) -> Path:
        return self.path / "baselines.json"

    @property
    def initial_path(self) -> Path:
        return self.path / "initial.safetensors"

    @property
    def history_path(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def samples_path(self) -> Path:
        return self.path / "samples.jsonl"

    def _entries(self) -> list[Path]:
        try:
            return list(self.path.iterdir())
        except FileNotFoundError:
            raise RunNotFoundError(f"run {self.name!r} was deleted in the meantime") from None

    def checkpoints(self) -> dict[int, Path]:
        """The checkpoint files by step, ascending. Links are ignored: they could point outside the store."""
        return self._by_step(STEP_FILE)

    def kept(self) -> dict[int, Path]:
        """The kept checkpoint files by step, ascending (app/store/kept.py)."""
        return self._by_step(KEPT_FILE)

    def _by_step(self, names: re.Pattern[str]) -> dict[int, Path]:
        found = {}
        for path in self._entries():
            if (match := names.fullmatch(path.name)) and is_regular(path):
                found[int(match[1])] = path
        return dict(sorted(found.items()))

    def files(self) -> Files:
        """What is in the directory, from the cache unless the directory or the samples have changed.

        Raises RunNotFoundError if the run was deleted.
        """
        try:
            changed = os.stat(self._folder).st_mtime_ns, self._samples_size()
        except FileNotFoundError:
            raise RunNotFoundError(f"run {self.name!r} was deleted in the meantime") from None
        if self._files is not None and self._files[0] == changed:
            return self._files[1]
        now = time.monotonic()
        if self._seen is None or self._seen[0] != changed:
            self._seen = (changed, now)
        found = self._look_at_files()
        if now - self._seen[1] >= UNSETTLED:
            self._files = (changed, found)
        return found

    def _look_at_files(self) -> Files:
        try:
            steps = tuple(sorted({*self.checkpoints(), *self.kept()}))
            faults = [
                f"{name} is not a regular file and is ignored: remove it"
                for name in FILES
                if os.path.lexists(self.path / name) and not is_regular(self.path / name)
            ]
            samples = history.count(self.samples_path) if is_regular(self.samples_path) else 0
        except OSError as error:
            return Files((), 0, (f"its files cannot be read: {error.strerror or error}",))
        return Files(steps, samples, tuple(faults))

    def _samples_size(self) -> int:
        try:
            return os.stat(f"{self._folder}/samples.jsonl").st_size
        except OSError:
            return 0

    def checkpoint_path(self, step: int) -> Path:
        return self.path / f"step-{step:09d}.safetensors"

    def kept_path(self, step: int) -> Path:
        return self.path / f"kept-{step:09d}.safetensors"

    def best_path(self, step: int) -> Path:
        return self.path / f"best-{step:09d}.safetensors"

    def latest(self) -> Latest | None:
        """The newest and the best checkpoint; None before the first.

        Raises RunFileError if latest.json is damaged.
        """
        try:
            return self._read("latest.json", Latest)
        except FileNotFoundError:
            return None

    def usable_latest(self) -> Latest | None:
        """`latest`, but None if latest.json is damaged, which is reported elsewhere."""
        try:
            return self.latest()
        except RunFileError:
            return None

    def write_latest(self, latest: Latest) -> None:
        """Raises OSError, LeaseLostError, RunFileError."""
        self._write("latest.json", latest)
