"""Pausing, resuming, stopping, prioritising and deleting runs.

Servers write `control.json`, and the worker acts on it within a second. A run is deleted only while no worker
holds it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from filelock import Timeout

from app.errors import ConflictError, RunNotFoundError
from app.store.files import remove_folder
from app.store.records import Control, Status, Wanted
from app.store.run import Run
from app.store.run_store import RunStore

RETRY_SECONDS = 0.05
STOP_SECONDS = 10.0  # maximum time to wait for a worker to stop training a run
POSSIBLE: dict[Wanted, tuple[str, ...]] = {
    "pause": ("queued", "training", "paused"),
    "stop": ("queued", "training", "paused", "stopped"),
    "train": ("queued", "training", "paused", "stopped", "failed"),
}
WORDS: dict[Wanted, str] = {"pause": "paused", "stop": "stopped", "train": "resumed"}


def ask(store: RunStore, run: Run, wanted: Wanted | None, priority: int | None) -> Status:
    """Requests a change of `run` and returns its new status. None leaves a request or priority unchanged.

    Raises ConflictError if the run's state does not allow it, RunNotFoundError if the run was deleted,
    OSError.
    """
    with store.changing():
        state = run.standing.state
        if wanted is not None and state not in POSSIBLE[wanted]:
            hint = ": fork it to continue training" if state == "finished" else ""
            raise ConflictError(f"run {run.name!r} is {state} and cannot be {WORDS[wanted]}{hint}")
        changes: dict[str, object] = {}
        if wanted is not None:
            changes |= {"wanted": wanted, "asked": time.time(), "answers": run.status.heartbeat}
        if priority is not None:
            changes["priority"] = priority
        try:
            run.write_control(Control.model_validate(run.control.model_dump() | changes))
        except FileNotFoundError:
            raise RunNotFoundError(f"run {run.name!r} was deleted in the meantime") from None
    store.announce()
    return run.standing


def begin_deletion(store: RunStore, name: str, force: bool, others: Sequence[str] = ()) -> None:
    """Requests that a run stop training, before it is deleted together with `others`.

    Raises ConflictError if no other run has a checkpoint to serve, unless `force`; RunNameError,
    RunNotFoundError, OSError.
    """
    run = store.get(name)
    going = (name, *others)
    serving = {one.name for one in store.list() if _serves(one)}
    if not force and serving and serving.issubset(going):
        raise ConflictError(f"run {name!r} is the only one that can be served: delete it with force=true")
    if run.standing.state in POSSIBLE["stop"]:
        ask(store, run, "stop", None)


def finish_deletion(store: RunStore, name: str, deadline: float) -> bool:
    """Deletes a run and returns True; returns False if a worker still holds it.

    Raises ConflictError if that is still so at `deadline` (of time.monotonic()), RunNotFoundError if the run
    is already deleted, OSError.
    """
    try:
        with store.holding(name):
            remove_folder(store.root / name, store.root)
    except Timeout:
        if time.monotonic() < deadline:
            return False
        raise ConflictError(
            f"run {name!r} was asked to stop and is still training: try again in a few seconds"
        ) from None
    except FileNotFoundError:
        raise RunNotFoundError(f"run {name!r} was deleted in the meantime") from None
    return True


def _serves(run: Run) -> bool:
    return (run.path / "latest.json").exists()
