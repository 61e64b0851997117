"""The models that the server generates with.

The default model, for requests that name none, is the newest valid checkpoint of the run that trained last,
unless it is configured by name. `latest.json` is polled. A checkpoint that is damaged, not from Charloom or
not the one that latest.json names is refused; the reason is logged and counted, and the previous model stays.
Thread-safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.engine.loaded_model import LoadedModel, prepared
from app.errors import ModelNotFoundError, NotReadyError, RunError, RunFileError, RunNotFoundError
from app.store.checkpoints import find_checkpoint, no_checkpoint, parse_model_name
from app.store.files import Identity, Unchanged, identity_of
from app.store.records import Latest
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.scan import Scan
from model.checkpoint import load
from model.errors import CheckpointError

LOOKS = 2  # stat calls for a run that has not changed: run.json and latest.json
MOVING_SECONDS = 120.0  # after its last checkpoint, during which a run is read at every poll
Candidate = tuple[tuple[bool, bool, float], Run, Latest | None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A file that could not be used, and why."""

    run: str
    file: str
    reason: str


class ModelStore:
    """Loads models from a RunStore: the default model by `refresh` or `look`, others by `get`.

    Args:
        runs: the store.
        cache_bytes: size of the cache of other models, from which the least recently used is dropped first.
        default: name of the default model; None for the run that trained last.

    Raises ModelNotFoundError if `default` is not a valid model name.

    Attributes:
        loads: number of checkpoints read.
        refusals: number of files that could not be used; `last_refusal` is the last one.
    """

    def __init__(self, runs: RunStore, cache_bytes: int = 1 << 28, default: str | None = None) -> None:
        self.runs = runs
        self.default = default
        self._default = parse_model_name(default) if default else None
        self._default_file: Identity | None = None
        self.loads = 0
        self.refusals = 0
        self.last_refusal: Refusal | None = None
        self._cache_bytes = cache_bytes
        self._current: LoadedModel | None = None
        self._lock = threading.Lock()
        self._named: OrderedDict[Identity, LoadedModel] = OrderedDict()
        self._latest: Unchanged[Latest | None] = Unchanged()
        self._refused: set[Identity] = set()
        self._failed: dict[str, str] = {}
        self._scan, self._count = Scan(runs.root), 0
        self._candidates: dict[str, Candidate] = {}
        self._digests: dict[str, str] = {}
        self._moved: dict[str, float] = {}

    @property
    def current(self) -> LoadedModel:
        """The default model. Raises NotReadyError if there is none."""
        if self._current is None:
            raise NotReadyError(self._why_not_ready())
        return self._current

    @property
    def ready(self) -> bool:
        return self._current is not None

    def refresh(self) -> None:
        """Reads all runs and updates the default model. Not for an event loop. Raises OSError."""
        with self._lock:
            runs = self.runs.list()
            self._count = len(runs)
            self._forget_all_but({run.name for run in runs})
            if self._default is not None:
                runs = [run for run in runs if run.name == self._default.run]
                if not runs:
                    self._current = None  # the configured run does not exist: no other model may replace it
            self._candidates = {}
            for run in runs:
                self._consider(run)
            self._choose()

    def look(self) -> None:
        """Updates the default model; call it a few times a second. Reads all runs only when necessary.

        Otherwise it reads only the runs that had a new checkpoint recently. Raises OSError.
        """
        if self._scan.due(1 + LOOKS * self._count):
            self.refresh()
            return
        with self._lock:
            now = time.monotonic()
            self._moved = {name: at for name, at in self._moved.items() if now - at < MOVING_SECONDS}
            for _, run, _ in [self._candidates[name] for name in self._moved if name in self._candidates]:
                self._consider(run)
            self._choose()

    def _choose(self) -> None:
        """Sets the default model to that of the best candidate with a usable checkpoint."""
        for _, run, latest in sorted(self._candidates.values(), key=lambda one: one[0], reverse=True):
            model = None
            with self._isolated(run):
                at = self._default.at if self._default else None
                model = self._newest_valid(run, latest) if at is None else self._default_at(run, at)
            if model is not None:
                if model is not self._current:
                    logger.info("serving %s", model.id)
                self._current = model
                return

    @contextmanager
    def _isolated(self, run: Run) -> Iterator[None]:
        """Logs an error in the block once and suppresses it, so that one bad run does not affect others."""
        try:
            yield
        except (RunNotFoundError, FileNotFoundError):
            pass  # just deleted
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            if self._failed.get(run.name) != message:
                self._failed[run.name] = message
                logger.exception("run %s cannot be read", run.name)

    def _forget_all_but(self, names: set[str]) -> None:
        """Drops everything that is cached of other, deleted runs."""
        self._latest.keep(names)
        for known in (self._failed, self._digests):
            for name in known.keys() - names:
                del known[name]
        self._refused = {identity for identity in self._refused if identity.run in names}
        for identity in [identity for identity in self._named if identity.run not in names]:
            del self._named[identity]

    def peek(self, name: str | None) -> LoadedModel | None:
        """The model `name` if it is the default model, otherwise None. Reads no files.

        Raises NotReadyError if `name` is None and there is no default model.
        """
        if name is None:
            return self.current
        if self._current is None:
            return None
        pinned = self._default is not None and self._default.at is not None
        names = [self.default] if pinned else [self._current.run, self._current.id]
        return self._current if name in names else None

    def get(self, name: str | None) -> LoadedModel:
        """The model `name`: `run`, `run@step`, `run@best`, or None for the default model.

        May read files, so do not call it in an event loop. Raises ModelNotFoundError, NotReadyError (no
        checkpoint yet), RunFileError, CheckpointError.
        """
        model = self.peek(name)
        if model is not None or name is None:
            return model or self.current
        asked = parse_model_name(name)
        try:
            run = self.runs.get(asked.run)
        except RunFileError:
            raise
        except RunError as error:
            default = f"; without a model {self._current.id} answers" if self._current else ""
            raise ModelNotFoundError(f"{error}{default}") from None
        with self._lock:
            if asked.at is None:
                return self._newest_named(run)
            return self._load_found(run, asked.at)

    def _load_found(self, run: Run, at: str) -> LoadedModel:
        """The checkpoint at a step, or the best. It is searched again if it is replaced before it is read."""
        found = find_checkpoint(run, at)
        while True:
            try:
                return self._load_cached(run, found.path, found.digest)
            except CheckpointError:
                before, found = found, find_checkpoint(run, at)
                if found.path == before.path:
                    raise

    def _newest_named(self, run: Run) -> LoadedModel:
        """The newest usable checkpoint of `run`, from the cache if possible."""
        latest = self._read_latest(run)
        files: list[tuple[Path, str | None]] = [(path, None) for path in reversed(run.checkpoints().values())]
        if latest is not None:
            files.insert(0, (run.path / latest.newest.file, latest.newest.digest))
        reason: CheckpointError | None = None
        for path, digest in files:
            try:
                return self._load_cached(run, path, digest)
            except CheckpointError as error:
                reason = reason or error
                self._refuse(run, path, error)
        raise reason or NotReadyError(no_checkpoint(run))

    def _load_cached(self, run: Run, path: Path, digest: str | None) -> LoadedModel:
        identity = identity_of(path)
        model = self._named.pop(identity, None) or self._load(run, path, digest)
        self._named[identity] = model
        size = sum(known.size for known in self._named.values())
        while size > self._cache_bytes:
            _, oldest = self._named.popitem(last=False)
            size -= oldest.size
        return model

    def _load(self, run: Run, path: Path, digest: str | None) -> LoadedModel:
        checkpoint = load(path)
        if digest is not None and checkpoint.digest != digest:
            raise CheckpointError(path, "is intact, but it is not the one that latest.json names")
        self.loads += 1
        return prepared(run.name, path, checkpoint)

    def _consider(self, run: Run) -> None:
        """Makes `run` a candidate for the default model if it has a checkpoint.

        Candidates are ordered: trained before untrained, trained here before imported, then by time.
        """
        self._candidates.pop(run.name, None)
        with self._isolated(run):
            latest = self._read_latest(run)
            if latest is not None:
                newest = latest.newest
                order = (newest.step > 0, not newest.imported, newest.time)
                self._candidates[run.name] = order, run, latest
                if self._digests.get(run.name, newest.digest) != newest.digest:
                    self._moved[run.name] = time.monotonic()
                self._digests[run.name] = newest.digest
            elif files := run.checkpoints():  # latest.json is damaged or missing
                step, path = files.popitem()
                order = (step > 0, True, identity_of(path).modified / 1e9)
                self._candidates[run.name] = order, run, None

    def _read_latest(self, run: Run) -> Latest | None:
        """The content of latest.json, the same object until the file changes; None if it cannot be used."""

        def read() -> Latest | None:
            try:
                return run.latest()
            except RunFileError as error:
                self._note(Refusal(run.name, "latest.json", str(error)))
                return None

        return self._latest.get(run.name, run.path / "latest.json", read)

    def _newest_valid(self, run: Run, latest: Latest | None) -> LoadedModel | None:
        """The newest usable checkpoint of `run`; the current model if no newer one is usable."""
        current = self._current if self._current and self._current.run == run.name else None
        if latest is not None:
            if current and current.digest == latest.newest.digest:
                return current
            model = self._try(run, run.path / latest.newest.file, latest)
            if model:
                return model
        if current:
            return current
        files = (path for path in reversed(run.checkpoints().values()))
        return next(filter(None, (self._try(run, path, None) for path in files)), None)

    def _default_at(self, run: Run, at: str) -> LoadedModel | None:
        """The configured checkpoint of `run`, a step or the best; None if it is missing or cannot be used."""
        try:
            found = find_checkpoint(run, at)
        except (ModelNotFoundError, NotReadyError):
            return None
        identity = identity_of(found.path)
        if identity in self._refused:
            return None
        if self._current is not None and identity == self._default_file:
            return self._current
        try:
            model = self._load(run, found.path, found.digest)
            self._default_file = identity
            return model
        except CheckpointError as error:
            self._refuse(run, found.path, error)
            return None

    def _try(self, run: Run, path: Path, latest: Latest | None) -> LoadedModel | None:
        """Loads a checkpoint; returns None if it is refused. A refused file is read again once it changes."""
        identity = identity_of(path)
        if identity in self._refused:
            return None
        try:
            return self._load(run, path, latest.newest.digest if latest else None)
        except CheckpointError as error:
            if latest and self._read_latest(run) is not latest:
                return None  # it was replaced while it was read; the next poll finds the new one
            self._refuse(run, path, error)
            return None

    def _refuse(self, run: Run, path: Path, error: CheckpointError) -> None:
        """Records why a checkpoint cannot be used, once for each version of the file."""
        identity = identity_of(path)
        if identity not in self._refused:
            self._refused.add(identity)
            self._note(Refusal(run.name, path.name, error.reason))

    def _note(self, refusal: Refusal) -> None:
        # logged before it is counted, so that the reason is in the log when the metric changes
        logger.error("checkpoint %s of run %s refused: %s", refusal.file, refusal.run, refusal.reason)
        self.refusals += 1
        self.last_refusal = refusal

    def _why_not_ready(self) -> str:
        if self.last_refusal is not None:
            return (
                f"no usable checkpoint in the store: {self.last_refusal.file} of run "
                f"{self.last_refusal.run!r} {self.last_refusal.reason}"
            )
        if self.default is not None:
            return f"the default model is {self.default} (CHARLOOM_MODEL), which the store does not have"
        return "no checkpoint in the store yet: start a worker with `charloom worker`"
