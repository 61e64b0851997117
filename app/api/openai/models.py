"""GET /v1/models: what OpenAI's clients can name."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from app.api.openai.schemas import ModelCard, ModelCards
from app.api.openapi import openai_errors
from app.api.services import Parts, Services

router = APIRouter(tags=["OpenAI"])


@router.get("/v1/models", summary="What can be asked for", responses=openai_errors(503))
async def models(parts: Parts) -> ModelCards:
    """Every run with a checkpoint, the one that answers by default first."""
    return await run_in_threadpool(_cards, parts)


@router.get("/v1/models/{name}", summary="One of them", responses=openai_errors(404, 503))
async def model(parts: Parts, name: str) -> ModelCard:
    """A run, or one checkpoint of it as `run@step` or `run@best`."""
    found = await parts.model(name)
    run = await run_in_threadpool(parts.runs.get, found.run)
    latest = await run_in_threadpool(run.usable_latest)
    return ModelCard(id=name, created=int(latest.newest.time) if latest else 0)


def _cards(parts: Services) -> ModelCards:
    first = parts.models.current.run if parts.models.ready else None
    found = [(run, latest) for run in parts.runs.list() if (latest := run.usable_latest()) is not None]
    found.sort(key=lambda pair: pair[0].name != first)
    return ModelCards(data=[ModelCard(id=run.name, created=int(latest.newest.time)) for run, latest in found])
