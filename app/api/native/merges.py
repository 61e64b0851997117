"""POST /runs/merge."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Depends, Response
from starlette.concurrency import run_in_threadpool

from app.api.native.run_info import describe
from app.api.native.run_schemas import MergeRequest, RunInfo
from app.api.openapi import errors
from app.api.services import ServicesDep, in_turn
from app.intake.merge import merge_runs
from app.server.auth import Right, needs

router = APIRouter(tags=["training"])


@router.post(
    "/runs/merge",
    status_code=201,
    summary="Merge models",
    dependencies=[Depends(needs(Right.TRAIN))],
    responses=errors(400, 403, 404, 409, 413, 422, 503, 507),
)
async def merge(body: MergeRequest, response: Response, services: ServicesDep) -> RunInfo:
    """Create a finished run whose predictions are the mean of the predictions of several models.

    The models must have the same cell, units, layers, embedding and characters. They are not changed. The new
    run has the text of the first model, and its held-out loss is measured on that text.
    """
    work = partial(merge_runs, services.runs, body.models, body.name, services.limits)
    run = await in_turn(services, work)
    response.headers["location"] = f"/runs/{run.name}"
    return await run_in_threadpool(describe, services, run)
