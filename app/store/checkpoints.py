"""Model names (`run`, `run@step`, `run@best`) and the checkpoint files that they refer to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from app.errors import ModelNotFoundError, NotReadyError
from app.store.run import Run

BEST = "best"
MODEL_NAME = re.compile(rf"([^@]*)(?:@([0-9]{{1,12}}|{BEST}))?", re.ASCII)
LISTED = 12  # maximum number of steps in an error message


class ModelName(NamedTuple):
    """A run and one of its checkpoints: a step in digits, "best", or None for the newest."""

    run: str
    at: str | None


class Found(NamedTuple):
    """A checkpoint file; `digest` is from latest.json, or None if that does not list the file."""

    step: int
    path: Path
    digest: str | None


def parse_model_name(name: str) -> ModelName:
    """Splits `run@step` into its parts. Raises ModelNotFoundError if `name` is not a valid model name."""
    match = MODEL_NAME.fullmatch(name)
    if match is None:
        raise ModelNotFoundError(
            f"no model can have the name {name[:80]!r}: give a run, run@step or run@best"
        )
    return ModelName(match[1], match[2])


def find_checkpoint(run: Run, at: Any = None) -> Found:
    """The checkpoint of `run` at step `at`, a number or its digits; the best for "best", the newest for None.

    Raises NotReadyError if the run has no checkpoint, ModelNotFoundError if it has none at that step.
    """
    latest, steps = run.usable_latest(), run.checkpoints()
    best = latest.best if latest else None
    if latest is None and not steps:
        raise NotReadyError(no_checkpoint(run))
    if at is None:
        if latest:
            return Found(latest.newest.step, run.path / latest.newest.file, latest.newest.digest)
        step, path = max(steps.items())
        return Found(step, path, None)
    wanted = str(at)[:13]
    step = int(wanted) if wanted.isascii() and wanted.isdecimal() else -1
    if step in (kept := run.kept()):  # checked first: after a rollback another checkpoint may have this step
        return Found(step, kept[step], None)
    if step in steps:  # checked before the best one of the same step, which is another file
        return Found(step, steps[step], None)
    if best and (wanted == BEST or step == best.step):
        return Found(best.step, run.path / best.file, best.digest)
    shown = ", ".join(map(str, list(steps)[:LISTED])) + (", …" if len(steps) > LISTED else "")
    best_step = f", and its best is {best.step}" if best else ""
    nearest = min({*steps, *kept}, key=lambda other: abs(other - step), default=None)
    hint = f"; the nearest to {step} is {run.name}@{nearest}" if step >= 0 and nearest is not None else ""
    raise ModelNotFoundError(
        f"run {run.name!r} has no checkpoint {wanted}; it has the steps {shown}{best_step}{hint}"
    )


def no_checkpoint(run: Run) -> str:
    """The message for a run without checkpoints."""
    return f"run {run.name!r} has no checkpoint yet: it is {run.standing.state}"
