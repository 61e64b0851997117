"""GET /v1/models."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from app.api.openai.schemas import ModelCard, ModelCards
from app.api.openapi import openai_errors
from app.api.services import Services, ServicesDep

router = APIRouter(tags=["OpenAI"])


@router.get("/v1/models", summary="List the models", responses=openai_errors(503))
async def models(services: ServicesDep) -> ModelCards:
    """Every run with a checkpoint; the default model is first."""
    return await run_in_threadpool(_cards, services)


@router.get("/v1/models/{name}", summary="One model", responses=openai_errors(404, 503))
async def model(services: ServicesDep, name: str) -> ModelCard:
    """A run, or one checkpoint of it as `run@step` or `run@best`."""
    found = await services.model(name)
    run = await run_in_threadpool(services.runs.get, found.run)
    latest = await run_in_threadpool(run.usable_latest)
    return ModelCard(id=name, created=int(latest.newest.time) if latest else 0)


def _cards(services: Services) -> ModelCards:
    first = services.models.current.run if services.models.ready else None
    found = [(run, latest) for run in services.runs.list() if (latest := run.usable_latest()) is not None]
    found.sort(key=lambda pair: pair[0].name != first)
    return ModelCards(data=[ModelCard(id=run.name, created=int(latest.newest.time)) for run, latest in found])
