"""OpenAI's fine-tuning jobs, each of which is a run.

Reads and writes files: not for an event loop.
"""

from __future__ import annotations

import heapq
import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.api.openai.job_schemas import (
    FineTuningJob,
    FineTuningStatus,
    Hyperparameters,
    HyperparametersUsed,
    JobCheckpoint,
    JobError,
    JobEvent,
    JobRequest,
    MethodUsed,
    SupervisedUsed,
)
from app.errors import NotFoundError, RunNotFoundError
from app.intake.new_runs import fork, new_run
from app.store.checkpoints import parse_model_name
from app.store.files import Source
from app.store.records import ENDED, MAX_TIME, RUN_NAME, State
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Limits
from app.store.uploads import UploadedFiles
from model.batches import windows_per_epoch
from model.config import DEFAULT_PRESET, PRESETS, RunConfig
from model.errors import TextError

PREFIX = "ftjob-"  # a job's id is this plus the name of its run
AUTO = "auto"
STATUSES: dict[State, FineTuningStatus] = {
    "queued": "queued",
    "training": "running",
    "paused": "paused",
    "finished": "succeeded",
    "failed": "failed",
    "stopped": "cancelled",
}
LOSSES = {"loss": "train_loss", "smooth_loss": "smooth_train_loss", "validation_loss": "valid_loss"}
LOOKED_BACK = 1_000  # points before a checkpoint that are searched for its losses
logger = logging.getLogger(__name__)

Points = Sequence[dict[str, Any]]  # points of a loss curve


def create(store: RunStore, files: UploadedFiles, asked: JobRequest, limits: Limits) -> Run:
    """Queue the run of a new job. Raises NotFoundError, and as `new_run` and `fork` do."""
    file = files.get(asked.training_file)
    known = {"suggested": asked.suffix or "", "training_file": file.id}
    name, step = parse_model_name(asked.model)
    parent = _run_or_none(store, name)
    if parent is None and asked.model not in (AUTO, *PRESETS):
        store.get(name)  # raises an error that lists the existing names
    with files.open(file.id) as content:
        source = Source(file.filename, content)
        if parent is not None:
            given = _options(asked, parent.config) | ({"step": step} if step else {})
            return fork(store, name, given, [source], limits, **known).run
        preset = {} if asked.model == AUTO else {"preset": asked.model}
        base = PRESETS.get(asked.model, PRESETS[DEFAULT_PRESET])
        return new_run(store, preset | _options(asked, base), [source], limits, **known).run


def _run_or_none(store: RunStore, name: str) -> Run | None:
    try:
        return store.get(name) if RUN_NAME.fullmatch(name) else None
    except RunNotFoundError:
        return None


def _options(asked: JobRequest, base: RunConfig) -> dict[str, Any]:
    """The options of the run for the hyperparameters that are not `auto`."""
    supervised = asked.method.supervised if asked.method else None
    given = (supervised.hyperparameters if supervised else None) or asked.hyperparameters or Hyperparameters()
    options: dict[str, Any] = {}
    if isinstance(given.n_epochs, int):
        options["epochs"] = given.n_epochs
    if isinstance(given.batch_size, int):
        options["streams"] = given.batch_size
    if isinstance(given.learning_rate_multiplier, float):
        options["learning_rate"] = base.learning_rate * given.learning_rate_multiplier
    if asked.seed is not None:
        options["seed"] = asked.seed
    return options | (asked.options or {})


def run_of(store: RunStore, job_id: str) -> Run:
    """The run of a job. Raises NotFoundError, RunFileError."""
    name = job_id.removeprefix(PREFIX)
    run = _run_or_none(store, name) if name != job_id else None
    if run is None:
        raise NotFoundError(f"there is no job {job_id[:80]!r}: GET /v1/fine_tuning/jobs lists them")
    return run


def all_jobs(store: RunStore) -> list[Run]:
    """Every run, the newest first, including those that were not created as jobs."""
    return sorted(store.list(), key=lambda run: run.spec.position, reverse=True)


def job_id(run: Run) -> str:
    return PREFIX + run.name


def describe(run: Run) -> FineTuningJob:
    """A run as a job. Raises RunError."""
    spec, config, status = run.spec, run.config, run.standing
    ended = status.state in ENDED
    used = _used(run)
    base = spec.parent or (config.preset if config.preset in PRESETS else AUTO)
    return FineTuningJob(
        id=job_id(run),
        created_at=int(spec.created),
        finished_at=int(status.heartbeat or spec.created) if ended else None,
        estimated_finish=None if ended or status.expected_end is None else int(status.expected_end),
        model=base,
        fine_tuned_model=run.name if ended and run.usable_latest() else None,
        status=STATUSES[status.state],
        error=_error(status.reason) if status.state == "failed" else None,
        hyperparameters=used,
        method=MethodUsed(supervised=SupervisedUsed(hyperparameters=used)),
        seed=config.seed,
        training_file=spec.training_file or spec.corpus_name,
        trained_tokens=status.step * config.sequence_length * config.streams,
    )


def _error(reason: str | None) -> JobError:
    return JobError(code="training_failed", message=reason or "see the worker's log")


def _used(run: Run) -> HyperparametersUsed:
    config = run.config
    learnt = run.spec.characters - int(run.spec.characters * config.validation_fraction)
    try:
        epochs = config.steps / windows_per_epoch(learnt, config.sequence_length, config.streams)
    except TextError:  # the record of a run that cannot be trained
        epochs = 0.0
    rate = PRESETS.get(config.preset, PRESETS[DEFAULT_PRESET]).learning_rate
    return HyperparametersUsed(
        n_epochs=AUTO if config.minutes else max(1, round(epochs)),
        batch_size=config.streams,
        learning_rate_multiplier=round(config.learning_rate / rate, 6),
    )


class Moment(NamedTuple):
    """An event of a run at a step; `kind` distinguishes events of the same step."""

    step: int
    kind: str
    data: Any = None


def moments(run: Run, points: Points) -> Iterator[Moment]:
    """The events of a run, the newest first, generated lazily."""
    status, saved = run.standing, list(run.checkpoints())
    last = max(points[-1]["step"] if points else -1, saved[-1] if saved else -1) + 1
    if status.state in ENDED or status.reason:
        yield Moment(last + 1, "state", status)
    for number, warning in enumerate(status.warnings):
        yield Moment(last, f"warning{number}", warning)
    yield from heapq.merge(
        (Moment(point["step"], "point", point) for point in reversed(points)),
        (Moment(step, "saved") for step in reversed(saved)),
        key=lambda moment: -moment.step,
    )
    yield Moment(-1, "made")


def event_id(run: Run, moment: Moment) -> str:
    return f"ftevent-{run.name}-{moment.step}-{moment.kind}"


def event(run: Run, points: Points, moment: Moment) -> JobEvent:
    """The JSON of one event."""
    spec, (step, kind, data) = run.spec, moment
    more: dict[str, Any] = {"level": "info", "type": "message"}
    seconds = max(0.0, run.standing.heartbeat - spec.created)
    if kind == "made":
        seconds, message = 0.0, f"Queued on {spec.corpus_name}, {spec.characters:,} characters"
    elif kind == "point":
        found = metrics(data)
        text = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.items())
        seconds, message = data.get("seconds") or 0.0, f"Step {step:,}: {text}"
        more |= {"type": "metrics", "data": {"step": step} | found}
    elif kind == "saved":
        before = _recorded(points, step)
        seconds = (points[before - 1].get("seconds") or 0.0) if before else 0.0
        message = f"Checkpoint {run.name}@{step} written"
    elif kind == "state":
        more["level"] = "error" if data.state == "failed" else "info"
        message = f"{STATUSES[data.state]}{f': {data.reason}' if data.reason else ''}".capitalize()
    else:
        more["level"], message = "warn", data
    at = int(max(0.0, min(MAX_TIME, spec.created + seconds)))
    return JobEvent(id=event_id(run, moment), created_at=at, message=message, **more)


def _recorded(points: Points, step: int) -> int:
    """How many points were recorded up to `step`."""
    return bisect_right(points, step, key=lambda point: point["step"])


def metrics(point: dict[str, Any]) -> dict[str, float]:
    """The measured losses of a point of the curve, under OpenAI's names."""
    return {name: point[ours] for ours, name in LOSSES.items() if point.get(ours) is not None}


def checkpoint_id(run: Run, step: int) -> str:
    return f"ftckpt-{run.name}-{step}"


def checkpoint(run: Run, points: Points, step: int, path: Path) -> JobCheckpoint | None:
    """One checkpoint, with the last losses recorded up to its step; None if it was removed meanwhile."""
    try:
        written = path.stat().st_mtime
    except FileNotFoundError:
        return None
    return JobCheckpoint(
        id=checkpoint_id(run, step),
        created_at=int(written),
        fine_tuned_model_checkpoint=f"{run.name}@{step}",
        fine_tuning_job_id=job_id(run),
        step_number=step,
        metrics={"step": step} | _metrics_at(points, step),
    )


def _metrics_at(points: Points, step: int) -> dict[str, float]:
    """The last losses recorded up to `step`; the held-out loss with its step, since it is measured rarely."""
    known: dict[str, float] = {}
    number = _recorded(points, step)
    for point in points[max(0, number - LOOKED_BACK) : number]:
        found = metrics(point)
        if "valid_loss" in found:
            found["valid_step"] = point["step"]
        known |= found
    return known


def described(runs: Sequence[Run]) -> list[FineTuningJob]:
    """The jobs of the runs that still exist."""
    found = []
    for run in runs:
        try:
            found.append(describe(run))
        except RunNotFoundError:  # deleted meanwhile
            continue
        except Exception:  # one damaged run must not break the list
            logger.exception("run %s cannot be described as a job", run.name)
    return found
