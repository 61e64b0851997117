"""What people ask of a run that is there: to wait, to go on, to end, to go first, to be gone.

Servers write `control.json`, the worker obeys it within a second. A run is deleted only while nobody trains
it.
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
STOP_SECONDS = 10.0  # longest that the end of a run's training is waited for
POSSIBLE: dict[Wanted, tuple[str, ...]] = {
    "pause": ("queued", "training", "paused"),
    "stop": ("queued", "training", "paused", "stopped"),
    "train": ("queued", "training", "paused", "stopped", "failed"),
}
WORDS: dict[Wanted, str] = {"pause": "paused", "stop": "stopped", "train": "resumed"}


def ask(store: RunStore, run: Run, wanted: Wanted | None, priority: int | None) -> Status:
    """Ask something of `run`, None leaves it as it was; where it stands then.

    Raises ConflictError if that is not possible in its state, RunNotFoundError if it was deleted, OSError.
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
    """Ask a run's training to stop. `others` will be deleted with it.

    Raises ConflictError if no run that stays has a checkpoint to serve, unless `force`; RunNameError,
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
    """Remove all of a run, unless it is still trained: False then, and ConflictError after `deadline`.

    `deadline` is by time.monotonic(). Raises RunNotFoundError if another was quicker, OSError.
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
