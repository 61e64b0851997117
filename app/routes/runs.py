"""The runs, and what they wrote on the way."""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from app.records import CheckpointEntry
from app.routes.documents import errors
from app.runs import Run
from app.schemas import CheckpointInfo, RunInfo, RunList, SampleInfo, SampleList
from app.services import Parts, Services

STALE_SECONDS = 15.0  # a worker writes its heartbeat every second

router = APIRouter(tags=["training"])

ModelQuery = Annotated[
    str | None, Query(description="A run; by default the one that trained last.", examples=["classic"])
]


@router.get("/models", summary="All runs", responses=errors(503))
async def models(parts: Parts) -> RunList:
    """Every run of the store, in the order of the queue, with its state, losses and checkpoints."""
    return await run_in_threadpool(list_runs, parts)


@router.get("/samples", summary="What a run wrote on the way", responses=errors(404, 422, 503))
async def samples(parts: Parts, model: ModelQuery = None) -> SampleList:
    """The passages that a run wrote while it was trained, oldest first, with the losses at those steps."""
    return await run_in_threadpool(_list_samples, parts, model)


def list_runs(parts: Services) -> RunList:
    """Every run that can be read. Reads the disk."""
    found = []
    for run in parts.runs.list():
        try:
            found.append(_describe(parts, run))
        except FileNotFoundError:  # deleted meanwhile
            continue
    return RunList(models=found)


def _describe(parts: Services, run: Run) -> RunInfo:
    status, latest, config = run.status, run.usable_latest(), run.config
    serving = parts.models.current if parts.models.ready else None
    silent = time.time() - status.heartbeat > STALE_SECONDS
    return RunInfo(
        name=run.name,
        serving=serving.id if serving and serving.run == run.name else None,
        state=status.state,
        stale=status.state == "training" and silent,
        reason=status.reason,
        warnings=status.warnings,
        preset=run.spec.preset,
        cell=config.cell,
        hidden=config.hidden,
        layers=config.layers,
        corpus=run.spec.corpus_name,
        characters=run.spec.characters,
        step=status.step,
        steps=0 if config.minutes else config.steps,
        fraction=status.fraction,
        seconds=status.seconds,
        expected_end=status.expected_end,
        characters_per_second=status.characters_per_second,
        loss=status.loss,
        smooth_loss=status.smooth_loss,
        validation_loss=status.validation_loss,
        newest=_checkpoint(latest.newest if latest else None),
        best=_checkpoint(latest.best if latest else None),
        checkpoints=list(run.checkpoints()),
        samples=len(run.samples()),
    )


def _checkpoint(entry: CheckpointEntry | None) -> CheckpointInfo | None:
    if entry is None:
        return None
    return CheckpointInfo(step=entry.step, digest=entry.digest, time=entry.time, loss=entry.loss)


def _list_samples(parts: Services, model: str | None) -> SampleList:
    run = parts.run(model)
    points = parts.curves.get(run).points
    steps = [point["step"] for point in points]
    held_out = [point for point in points if point.get("validation_loss") is not None]
    held_out_steps = [point["step"] for point in held_out]
    found = []
    for sample in run.samples():
        at = bisect_right(steps, sample["step"])
        measured = bisect_right(held_out_steps, sample["step"])
        found.append(
            SampleInfo(
                step=sample["step"],
                kind=sample["kind"],
                text=sample["text"],
                smooth_loss=points[at - 1].get("smooth_loss") if at else None,
                validation_loss=held_out[measured - 1]["validation_loss"] if measured else None,
            )
        )
    return SampleList(run=run.name, samples=found)
