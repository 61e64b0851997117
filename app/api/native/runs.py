"""Routes of the runs: state, control, deletion and samples."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from starlette.concurrency import run_in_threadpool

from app.api.native.run_info import ModelQuery, describe, list_runs
from app.api.native.run_schemas import (
    Deleted,
    KeepRequest,
    Kept,
    RunChange,
    RunInfo,
    RunList,
    SampleInfo,
    SampleList,
)
from app.api.openapi import errors
from app.api.services import Services, ServicesDep, change_in_turn
from app.server.auth import Right, needs
from app.server.streaming import bounded_answer
from app.store.control import RETRY_SECONDS, STOP_SECONDS, finish_deletion
from app.store.groups import ask_group, begin_group_deletion
from app.store.kept import MAX_KEPT, keep
from app.store.records import Wanted

router = APIRouter(tags=["training"])


@router.get("/runs", summary="All runs", responses=errors(503))
async def runs(services: ServicesDep) -> RunList:
    """Every run of the store, in the order of the queue, with its state, losses and checkpoints."""
    return RunList(runs=await run_in_threadpool(list_runs, services))


@router.get("/runs/{name}", summary="One run", responses=errors(404, 422, 503))
async def one(name: str, services: ServicesDep) -> RunInfo:
    """State, progress, losses, speed, expected end and checkpoints of a run."""
    return await run_in_threadpool(lambda: describe(services, services.runs.get(name)))


@router.patch(
    "/runs/{name}",
    summary="Pause, resume, stop or prioritise",
    dependencies=[Depends(needs(Right.TRAIN))],
    responses=errors(400, 403, 404, 409, 413, 422, 503),
)
async def change(name: str, body: RunChange, services: ServicesDep) -> RunInfo:
    """Pause, resume, stop or prioritise a run.

    A run in training stays in state `training` until its worker has acted.
    """
    return await change_in_turn(services, partial(_change, services, name, body))


@router.post(
    "/runs/{name}/keep",
    summary="Keep a checkpoint that a link names",
    responses=errors(400, 404, 413, 422, 503, 507),
)
async def keep_checkpoint(name: str, body: KeepRequest, services: ServicesDep) -> Kept:
    """Training deletes most checkpoints after some minutes; a kept one gives the same texts later.

    Use this before sharing a request that names a step. At most 16 checkpoints are kept per run. The earliest
    is released first, and all of them when the store needs their space for new checkpoints.
    """

    def kept() -> Kept:
        run = services.runs.get(name)
        count = keep(run, body.step, services.limits.budget)
        return Kept(model=f"{run.name}@{body.step}", kept=count, limit=MAX_KEPT)

    return await run_in_threadpool(kept)


@router.delete(
    "/runs/{name}",
    summary="Delete a run",
    dependencies=[Depends(needs(Right.ADMIN))],
    responses=errors(403, 404, 409, 422, 503),
)
async def remove(
    name: str,
    services: ServicesDep,
    force: Annotated[
        bool, Query(description="Delete it even if no other run can be served afterwards.")
    ] = False,
) -> Deleted:
    """Delete a run, and its members if they are trained separately, after stopping their training."""
    names = await change_in_turn(services, partial(begin_group_deletion, services.runs, name, force))
    deadline = time.monotonic() + STOP_SECONDS
    for going in names:
        while not await run_in_threadpool(finish_deletion, services.runs, going, deadline):
            await asyncio.sleep(RETRY_SECONDS)
    return Deleted(name=name)


@router.get(
    "/samples",
    summary="Samples of a run",
    response_model=SampleList,
    responses=errors(404, 422, 429, 503),
)
async def samples(services: ServicesDep, model: ModelQuery = None) -> Response:
    """The samples that a run wrote during training, oldest first, with the losses at those steps."""

    def body() -> bytes:
        return _list_samples(services, model).model_dump_json().encode()

    return bounded_answer(await run_in_threadpool(body), "application/json", {}, services.answers)


def _change(services: Services, name: str, body: RunChange) -> RunInfo:
    run = services.runs.get(name)
    wanted: Wanted | None = "train" if body.action == "resume" else body.action
    if wanted is not None or body.priority is not None:
        ask_group(services.runs, run, wanted, body.priority)
    return describe(services, run)


def _list_samples(services: Services, model: str | None) -> SampleList:
    run = services.run(model)
    points = services.curves.get(run).points
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
                validation_step=held_out_steps[measured - 1] if measured else None,
            )
        )
    return SampleList(run=run.name, samples=found)
