"""The JSON of a run: state, progress, losses, checkpoints."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import Query

from app.api.native.run_schemas import CheckpointInfo, RunInfo
from app.api.services import Services
from app.errors import RunFileError, RunNotFoundError
from app.healthcheck import SILENT_SECONDS
from app.intake.expectations import seconds_left
from app.store.groups import standing_of
from app.store.records import CheckpointEntry
from app.store.run import Files, Run
from model.config import PRESETS, RunConfig

UNFINISHED = ("queued", "training", "paused")

logger = logging.getLogger(__name__)

ModelQuery = Annotated[
    str | None, Query(description="A run; by default the one trained last.", examples=["classic"])
]


def list_runs(services: Services) -> list[RunInfo]:
    """All runs that can be read. Reads the disk."""
    found = []
    for run in services.runs.list():
        try:
            found.append(describe(services, run))
        except RunNotFoundError:  # deleted meanwhile
            continue
        except Exception:  # one damaged run must not break the list
            logger.exception("run %s cannot be described", run.name)
    return found


def describe(services: Services, run: Run) -> RunInfo:
    """The JSON of one run. Reads the disk. Raises RunNotFoundError if it was deleted in the meantime."""
    control, latest, config = run.control, run.usable_latest(), run.config
    status = standing_of(services.runs, run)
    serving = services.models.current if services.models.ready else None
    # trained by its own worker, not as a group whose members have theirs
    training = run.status.state == status.state == "training"
    silent = training and (services.runs.leases.abandoned(run.name) or run.silence() > SILENT_SECONDS)
    files = run.files()
    return RunInfo(
        name=run.name,
        serving=serving.id if serving and serving.run == run.name else None,
        state=status.state,
        priority=control.priority,
        parent=run.spec.parent,
        parts=run.spec.parts or run.spec.member_names,
        group=run.spec.group,
        stale=silent,
        host=status.host if training else None,
        process=status.process if training else None,
        reason=status.reason,
        warnings=[*status.warnings, *_faults(run, files)],
        preset=run.spec.preset,
        settings=_settings(config),
        cell=config.cell,
        hidden=config.hidden,
        layers=config.layers,
        members=config.members,
        corpus=run.spec.corpus_name,
        characters=run.spec.characters,
        findings=run.spec.findings,
        step=status.step,
        steps=run.spec.steps,
        fraction=status.fraction,
        seconds=status.seconds,
        expected_end=status.expected_end,
        seconds_left=round(seconds_left(run, status), 1) if status.state in UNFINISHED else None,
        characters_per_second=status.characters_per_second,
        kernel=status.kernel,
        loss=status.loss,
        smooth_loss=status.smooth_loss,
        validation_loss=status.validation_loss,
        validation_step=status.validation_step,
        newest=_checkpoint(latest.newest if latest else None),
        best=_checkpoint(latest.best if latest else None),
        checkpoints=list(files.steps),
        samples=files.samples,
    )


def _settings(config: RunConfig) -> dict[str, Any]:
    """The settings that differ from the preset, or from the defaults if the preset is unknown."""
    usual = PRESETS.get(config.preset, RunConfig(preset=config.preset)).to_dict()
    return {name: value for name, value in config.to_dict().items() if value != usual[name]}


def _faults(run: Run, files: Files) -> list[str]:
    """Messages about files of the run that cannot be used."""
    try:
        run.latest()
    except RunFileError as error:
        return [*files.faults, str(error)]
    return list(files.faults)


def _checkpoint(entry: CheckpointEntry | None) -> CheckpointInfo | None:
    if entry is None:
        return None
    return CheckpointInfo(step=entry.step, digest=entry.digest, time=entry.time, loss=entry.loss)
