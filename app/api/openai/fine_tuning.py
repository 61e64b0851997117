"""/v1/fine_tuning/jobs: runs as OpenAI's fine-tuning jobs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.concurrency import run_in_threadpool

from app.api.openai import jobs as tuning
from app.api.openai.job_schemas import FineTuningJob, JobCheckpointList, JobEventList, JobList, JobRequest
from app.api.openai.paging import page
from app.api.openapi import openai_errors
from app.api.services import Services, ServicesDep, change_in_turn, in_turn
from app.server.auth import Right, needs
from app.store.groups import ask_group
from app.store.records import Wanted

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["OpenAI"])

TRAINING = [Depends(needs(Right.TRAIN))]
After = Annotated[str | None, Query(description="The last id of the previous page.")]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post(
    "",
    summary="Train on an uploaded file",
    dependencies=TRAINING,
    responses=openai_errors(400, 403, 404, 409, 413, 503, 507),
)
async def create(asked: JobRequest, services: ServicesDep) -> FineTuningJob:
    """Queue a run: a new one, or one that continues from a checkpoint of another."""

    def made() -> FineTuningJob:
        return tuning.describe(tuning.create(services.runs, services.files, asked, services.limits))

    return await in_turn(services, made)


@router.get("", summary="Jobs", responses=openai_errors(400, 503))
async def jobs(services: ServicesDep, after: After = None, limit: Limit = 20) -> JobList:
    """Every run as a job, the newest first, including those created in other ways."""

    def found() -> JobList:
        shown, more = page(tuning.all_jobs(services.runs), after, limit, tuning.job_id)
        return JobList(data=tuning.described(shown), has_more=more)

    return await run_in_threadpool(found)


@router.get("/{job_id}", summary="One job", responses=openai_errors(404, 503))
async def job(job_id: str, services: ServicesDep) -> FineTuningJob:
    """The state of a run, as a job."""
    return await run_in_threadpool(lambda: tuning.describe(tuning.run_of(services.runs, job_id)))


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    dependencies=TRAINING,
    responses=openai_errors(403, 404, 409, 503, 507),
)
async def cancel(job_id: str, services: ServicesDep) -> FineTuningJob:
    """End a run and keep its checkpoints."""
    return await change_in_turn(services, partial(_ask, services, job_id, "stop"))


@router.post(
    "/{job_id}/pause",
    summary="Pause a job",
    dependencies=TRAINING,
    responses=openai_errors(403, 404, 409, 503, 507),
)
async def pause(job_id: str, services: ServicesDep) -> FineTuningJob:
    """Pause a run until it is resumed."""
    return await change_in_turn(services, partial(_ask, services, job_id, "pause"))


@router.post(
    "/{job_id}/resume",
    summary="Resume a job",
    dependencies=TRAINING,
    responses=openai_errors(403, 404, 409, 503, 507),
)
async def resume(job_id: str, services: ServicesDep) -> FineTuningJob:
    """Continue a run that was paused, stopped or has failed."""
    return await change_in_turn(services, partial(_ask, services, job_id, "train"))


def _ask(services: Services, job_id: str, wanted: Wanted) -> FineTuningJob:
    run = tuning.run_of(services.runs, job_id)
    ask_group(services.runs, run, wanted, None)
    return tuning.describe(run)


@router.get("/{job_id}/events", summary="Events of a job", responses=openai_errors(400, 404, 503))
async def events(job_id: str, services: ServicesDep, after: After = None, limit: Limit = 20) -> JobEventList:
    """Losses, checkpoints and the end of the run, the newest first. `/runs/{name}/events` streams them."""

    def found() -> JobEventList:
        run = tuning.run_of(services.runs, job_id)
        points = services.curves.get(run).points
        moments, more = page(
            tuning.moments(run, points), after, limit, lambda moment: tuning.event_id(run, moment)
        )
        return JobEventList(data=[tuning.event(run, points, moment) for moment in moments], has_more=more)

    return await run_in_threadpool(found)


@router.get("/{job_id}/checkpoints", summary="Checkpoints of a job", responses=openai_errors(400, 404, 503))
async def checkpoints(
    job_id: str, services: ServicesDep, after: After = None, limit: Limit = 10
) -> JobCheckpointList:
    """The checkpoints that can be requested as `run@step`, the newest first."""

    def found() -> JobCheckpointList:
        run = tuning.run_of(services.runs, job_id)
        points, newest_first = services.curves.get(run).points, reversed(run.checkpoints().items())
        steps, more = page(newest_first, after, limit, lambda item: tuning.checkpoint_id(run, item[0]))
        every = (tuning.checkpoint(run, points, *item) for item in steps)
        shown = [checkpoint for checkpoint in every if checkpoint is not None]
        ends = (shown[0].id, shown[-1].id) if shown else (None, None)
        return JobCheckpointList(data=shown, first_id=ends[0], last_id=ends[1], has_more=more)

    return await run_in_threadpool(found)
