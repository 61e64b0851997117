"""`run`, `run@step` and `run@best`: the names that checkpoints are asked for by, and the files they mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from app.errors import ModelNotFoundError, NotReadyError
from app.store.run import Run

BEST = "best"
MODEL_NAME = re.compile(rf"([^@]*)(?:@([0-9]{{1,12}}|{BEST}))?", re.ASCII)
LISTED = 12  # steps that an error message names


class ModelName(NamedTuple):
    """A run, and which of its checkpoints: a step in digits, "best", or None for the newest."""

    run: str
    at: str | None


class Found(NamedTuple):
    """A checkpoint on disk; `digest` is what latest.json says of it, None where it says nothing."""

    step: int
    path: Path
    digest: str | None


def parse_model_name(name: str) -> ModelName:
    """Split `run@step` into its parts. Raises ModelNotFoundError for what cannot be a model's name."""
    match = MODEL_NAME.fullmatch(name)
    if match is None:
        raise ModelNotFoundError(
            f"no model can have the name {name[:80]!r}: give a run, run@step or run@best"
        )
    return ModelName(match[1], match[2])


def find_checkpoint(run: Run, at: Any = None) -> Found:
    """The checkpoint of `run` at a step (a number, or its digits), its best, or for None its newest.

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
    if step in (kept := run.kept()):  # first: after a return to an earlier step another may have its number
        return Found(step, kept[step], None)
    if step in steps:  # before the best of that step, which is another file
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
    """Why nothing of `run` can be served."""
    return f"run {run.name!r} has no checkpoint yet: it is {run.standing.state}"
