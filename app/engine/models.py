"""What the server generates with: the newest valid checkpoint of the run that trained last, or a named one.

The default, what a request without a model gets, can be set to a model by its name.
Readers poll `latest.json`. A checkpoint that is torn, foreign or not the one announced is refused, with the
reason in the log and in `refusals`, and the last good one stays. Nothing here knows threads or the event loop
but for being safe to call from several threads.
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

from app.engine.loaded_model import LoadedModel, laid_out
from app.errors import ModelNotFoundError, NotReadyError, RunError, RunFileError, RunNotFoundError
from app.store.checkpoints import find_checkpoint, no_checkpoint, parse_model_name
from app.store.files import Identity, Unchanged, identity_of
from app.store.records import Latest
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.scan import Scan
from model.checkpoint import load
from model.errors import CheckpointError

LOOKS = 2  # at files of a run that has not changed: what was asked, its newest checkpoint
MOVING_SECONDS = 120.0  # after its last checkpoint, that a run is looked at as often as the server looks
Candidate = tuple[tuple[bool, bool, float], Run, Latest | None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A checkpoint that could not be used."""

    run: str
    file: str
    reason: str


class ModelStore:
    """Loads models of a RunStore: the current one by `refresh`, named ones by `get`.

    Attributes:
        default: name of the model that requests without one get; None is the run that trained last.
        loads: checkpoints read so far. Named ones are kept in `cache_bytes`, least recently used out first.
        refusals: how many could not be used; `last_refusal` says which, and why.
    """

    def __init__(self, runs: RunStore, cache_bytes: int = 1 << 28, default: str | None = None) -> None:
        """Raises ModelNotFoundError if `default` cannot be the name of a model."""
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
        """What a request gets that names no model. Raises NotReadyError."""
        if self._current is None:
            raise NotReadyError(self._why_not_ready())
        return self._current

    @property
    def ready(self) -> bool:
        return self._current is not None

    def refresh(self) -> None:
        """Look once for a newer checkpoint. Reads the disk: not for an event loop. Raises OSError."""
        with self._lock:
            runs = self.runs.list()
            self._count = len(runs)
            self._forget_all_but({run.name for run in runs})
            if self._default is not None:
                runs = [run for run in runs if run.name == self._default.run]
                if not runs:
                    self._current = None  # deleted, or not there yet: no other model may answer for it
            self._candidates = {}
            for run in runs:
                self._consider(run)
            self._choose()

    def look(self) -> None:
        """The same a few times a second: at all runs if it is time, else at those that have moved lately."""
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
        """Serve the run that trained last of those that can be."""
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
        """Whatever goes wrong with one run is logged once, and the look goes on to the next."""
        try:
            yield
        except (RunNotFoundError, FileNotFoundError):
            pass  # deleted meanwhile
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            if self._failed.get(run.name) != told:
                self._failed[run.name] = told
                logger.exception("run %s cannot be read", run.name)

    def _forget_all_but(self, names: set[str]) -> None:
        """Release what is kept of runs that were deleted."""
        self._latest.keep(names)
        for known in (self._failed, self._digests):
            for name in known.keys() - names:
                del known[name]
        self._refused = {identity for identity in self._refused if identity.run in names}
        for identity in [identity for identity in self._named if identity.run not in names]:
            del self._named[identity]

    def peek(self, name: str | None) -> LoadedModel | None:
        """The model of that name, if it takes no reading to know it. Raises NotReadyError for None."""
        if name is None:
            return self.current
        if self._current is None:
            return None
        pinned = self._default is not None and self._default.at is not None
        names = [self.default] if pinned else [self._current.run, self._current.id]
        return self._current if name in names else None

    def get(self, name: str | None) -> LoadedModel:
        """The model `name`: None, `run`, `run@step` or `run@best`. May read the disk: not for an event loop.

        Raises ModelNotFoundError, NotReadyError (no checkpoint yet), RunFileError, CheckpointError.
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
        """A checkpoint by its step, or the best; that may be replaced between finding and reading it."""
        found = find_checkpoint(run, at)
        while True:
            try:
                return self._load_cached(run, found.path, found.digest)
            except CheckpointError:
                before, found = found, find_checkpoint(run, at)
                if found.path == before.path:
                    raise

    def _newest_named(self, run: Run) -> LoadedModel:
        """The newest checkpoint of `run` that can be used, read only if it is not at hand."""
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
        return laid_out(run.name, path, checkpoint)

    def _consider(self, run: Run) -> None:
        """Note what there is of `run`, if it has a checkpoint: the run that trained last here comes first.

        Untrained runs come after all others.
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
            elif files := run.checkpoints():  # latest.json is damaged, or was lost: the files say as much
                step, path = files.popitem()
                order = (step > 0, True, identity_of(path).modified / 1e9)
                self._candidates[run.name] = order, run, None

    def _read_latest(self, run: Run) -> Latest | None:
        """What latest.json says, the same object while the file is the same; None if it cannot be used."""

        def read() -> Latest | None:
            try:
                return run.latest()
            except RunFileError as error:
                self._note(Refusal(run.name, "latest.json", str(error)))
                return None

        return self._latest.get(run.name, run.path / "latest.json", read)

    def _newest_valid(self, run: Run, latest: Latest | None) -> LoadedModel | None:
        """The newest checkpoint of `run` that can be used; the current one where no newer can."""
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
        """The default where it is a step of a run, or its best; None if it is not there or cannot be used."""
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
        """Load a checkpoint, or note why not; one refused before is not tried again until it changes."""
        identity = identity_of(path)
        if identity in self._refused:
            return None
        try:
            return self._load(run, path, latest.newest.digest if latest else None)
        except CheckpointError as error:
            if latest and self._read_latest(run) is not latest:
                return None  # replaced while it was read: the next look finds the new one
            self._refuse(run, path, error)
            return None

    def _refuse(self, run: Run, path: Path, error: CheckpointError) -> None:
        """Notes why a checkpoint cannot be used, once for each state of its file."""
        identity = identity_of(path)
        if identity not in self._refused:
            self._refused.add(identity)
            self._note(Refusal(run.name, path.name, error.reason))

    def _note(self, refusal: Refusal) -> None:
        # logged first: who sees it counted finds it in the log
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
