"""The store: a directory of self-contained runs, which is all that workers and servers share.

    checkpoints/<run>/run.json            the specification (RunSpec)
                      corpus.txt          the text, UTF-8
                      history.jsonl       the loss curve
                      samples.jsonl       texts generated during training
                      step-000010000.safetensors, best-000009500.safetensors
                      kept-000004000.safetensors  kept for copied links; written by servers
                      latest.json         the newest and the best checkpoint (Latest)
                      status.json         queued, training, … (Status)
                      control.json        requests of users (Control); written by servers
                      initial.safetensors the initial weights of a fork
    checkpoints/.reserve                  space that the worker frees to report that the disk is full
    checkpoints/.files/<id>/              files uploaded by OpenAI clients (app/store/uploads.py)
    checkpoints/.worker.json              the capacity of the worker started last (app/store/capacity.py)
    checkpoints/.store.json, .leases/     the locking scheme and the leases (app/store/leases.py)

Readers need no lock, because every file is replaced atomically.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.errors import RunError, RunExistsError, RunNameError, RunNotFoundError
from app.store.claims import Claim
from app.store.files import Unchanged, flush, inherited, make_folder, make_private, write_atomic
from app.store.leases import LEASE_SECONDS, Leases
from app.store.records import MAX_COUNT, RUN_NAME, RunSpec
from app.store.run import Run, Text
from app.store.temporaries import remove_temporaries, temporary_in
from model.config import RunConfig

CHANGE_SECONDS = 30.0  # maximum time to wait for the store's lock

EXTENSION = re.compile(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{0,9}$")  # the ".5" of "draft-1.5" is not one

logger = logging.getLogger(__name__)


Runs = list[Run]  # inside RunStore, `list` is a method


def default_name(file_name: str) -> str:
    """The default name of a run on the text of this file: the file's name without its extension."""
    return name_from(EXTENSION.sub("", Path(file_name).name))


def name_from(text: str) -> str:
    """A valid run name, as similar to `text` as possible."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()[:200]).strip("._-")[:50]
    return name if RUN_NAME.fullmatch(name) else "run"


class RunStore:
    """The runs in the directory `root`, which need not exist yet."""

    def __init__(self, root: Path | str, lease_seconds: float = LEASE_SECONDS) -> None:
        self.root = Path(root).resolve()
        self.leases = Leases(self.root, lease_seconds, self.changing)
        self._known: Unchanged[Run] = Unchanged()
        self._reported: set[str] = set()

    def make_root(self) -> None:
        """Creates the store's directory, readable only by its owner, unless it exists. Raises OSError."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(mode=0o700, exist_ok=True)

    def lock(self, path: Path, timeout: float = -1) -> FileLock:
        """A lock file in the store, with the store's group permissions."""
        self.make_root()
        return FileLock(path, timeout, mode=inherited(self.root) & 0o660)

    @contextmanager
    def holding(self, name: str) -> Iterator[Run]:
        """Holds the run's lease during the block: no other process can train, change or delete the run.

        Raises RunNameError, Timeout (immediately) if another process holds it, FileNotFoundError if there is
        no such run, StoreBusyError, OSError.
        """
        path = self._path(name)
        self.make_root()
        lease = self.leases.acquire(name)
        try:
            claim = Claim(path, lease)
            try:
                yield Run(path, claim)
            finally:
                claim.end()
        finally:
            lease.release()

    def announce(self) -> None:
        """Makes processes that poll the store (app/store/scan.py) read it soon."""
        with suppress(OSError):
            os.utime(self.root)

    def clear_leftovers(self) -> int:
        """Removes what killed processes left and leases of deleted runs; returns how many. Raises OSError."""
        count = 0
        for folder in (self.root, self.root / ".files", *(self.root / name for name in self._folders())):
            with suppress(FileNotFoundError, NotADirectoryError):
                if not folder.is_symlink():
                    count += remove_temporaries(folder)
        for name in self.leases.held():
            if RUN_NAME.fullmatch(name) and not (self.root / name).exists():
                with suppress(Timeout):
                    self.leases.acquire(name).release()
                    count += 1
        return count

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Holds the store's lock, for adding a run or writing control.json.

        Raises TimeoutError if other processes hold it for CHANGE_SECONDS.
        """
        try:
            lock = self.lock(self.root / ".queue.lock", CHANGE_SECONDS).acquire()
        except Timeout:
            raise TimeoutError(
                f"the store was busy with other changes for {CHANGE_SECONDS:g} s: try again"
            ) from None
        with lock:
            yield

    def create(self, name: str, config: RunConfig, text: str, corpus_name: str, **known: Any) -> Run:
        """Adds a run to the end of the queue.

        `corpus_name` is the text's file name, for people; `known` are further fields of the RunSpec. Raises
        RunNameError, RunExistsError, OSError (full disk, read-only store); nothing is left then.
        """
        data = text.encode("utf-8")
        described = Text(corpus_name, hashlib.sha256(data).hexdigest(), len(text))
        return self.add(
            name, config, described, lambda folder: write_atomic(folder / "corpus.txt", data), **known
        )

    def add(
        self,
        name: str,
        config: RunConfig,
        text: Text,
        fill: Callable[[Path], object],
        numbered: bool = False,
        **known: Any,
    ) -> Run:
        """Adds a run to the end of the queue, with the files that `fill` writes into its directory.

        With `numbered`, a number is appended to a name that is taken. `known` are further fields of the
        RunSpec. Raises RunNameError, RunExistsError, OSError, or what `fill` raises; nothing is left then.
        """
        self._path(name)
        self.make_root()
        folder = temporary_in(self.root)
        with self.changing():
            name = self._free_name(name) if numbered else name
            path = self._path(name)
            if path.exists() or path.is_symlink():
                raise RunExistsError(f"a run named {name!r} exists already: choose another name")
            spec = RunSpec(
                name=name,
                config=config,
                corpus_name=text.name,
                corpus_sha256=text.sha256,
                characters=text.characters,
                position=min(MAX_COUNT, 1 + max((run.spec.position for run in self.list()), default=0)),
                created=time.time(),
                **known,
            )
            try:
                make_folder(folder)
                fill(folder)
                spec.write(folder / "run.json")
                make_private(folder)
                folder.rename(path)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            flush(self.root)
        return Run(path)

    def _free_name(self, wanted: str) -> str:
        """`wanted`, with a number appended if a run has that name."""
        for name in (wanted, *(f"{wanted[:58]}-{number}" for number in range(2, 100_000))):
            path = self._path(name)
            if not path.exists() and not path.is_symlink():
                return name
        raise RunExistsError(f"all names like {wanted!r} are taken: choose another name")

    def get(self, name: str) -> Run:
        """The run `name`. Raises RunNameError, RunNotFoundError, RunFileError if run.json cannot be used."""
        path = self._path(name)
        # a link could point outside the store
        if path.is_symlink() or not path.is_dir():
            raise RunNotFoundError(f"no run named {name!r}{self._suggestion()}")
        run = self._load(name)
        if run is None:
            raise RunNotFoundError(f"{name!r} is a directory without a run: it has no run.json")
        return run

    def list(self) -> Runs:
        """All readable runs, in queue order. Others are reported in the log, once each."""
        runs: Runs = []
        names = list(self._folders())
        self._known.keep(names)
        self._reported.intersection_update(names)
        for name in names:
            try:
                run = self._load(name)
            except RunError as error:
                if name not in self._reported:
                    self._reported.add(name)
                    logger.warning("run ignored: %s", error)
                continue
            if run is not None:
                runs.append(run)
        return sorted(runs, key=lambda run: (run.spec.position, run.name))

    def _folders(self) -> Iterator[str]:
        """The names of directories that can be runs. Links are ignored: one could point outside the store."""
        try:
            with os.scandir(self.root) as entries:
                for entry in entries:
                    if RUN_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                        yield entry.name
        except (FileNotFoundError, NotADirectoryError):
            return

    def last_trained(self) -> float:
        """The Unix time of the newest checkpoint that was trained here; 0 if there is none."""
        newest = (latest.newest for run in self.list() if (latest := run.usable_latest()))
        return max((entry.time for entry in newest if not entry.imported), default=0.0)

    def _load(self, name: str) -> Run | None:
        # run.json is never rewritten, so a Run stays valid as long as the file is the same
        def read() -> Run:
            run = Run(self.root / name)
            _ = run.spec
            return run

        try:
            return self._known.get(name, f"{self.root}/{name}/run.json", read)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _path(self, name: str) -> Path:
        if not RUN_NAME.fullmatch(name):
            raise RunNameError(name)
        return self.root / name

    def _suggestion(self) -> str:
        names = [run.name for run in self.list()]
        more = ", …" if len(names) > 10 else ""
        return f". Runs: {', '.join(names[:10])}{more}" if names else "; the store is empty"
