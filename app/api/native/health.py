"""Health checks: whether the process is alive, and whether it can serve."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from app.api.openapi import ErrorResponse, Health, Ready, errors
from app.api.services import ServicesDep
from app.errors import DrainingError

router = APIRouter(tags=["health"])
UNUSUAL: dict[int | str, dict[str, Any]] = {
    415: {"model": ErrorResponse, "description": "a body with Content-Encoding"}
}


@router.get("/healthz", summary="Is the process alive?", responses=UNUSUAL)
async def healthz() -> Health:
    """Always 200 while the event loop runs."""
    return Health()


@router.get("/health", summary="For the clients of vLLM and TGI", responses=errors(503))
@router.get("/readyz", summary="Is a checkpoint loaded?", responses=errors(503))
async def readyz(services: ServicesDep) -> Ready:
    """200 with the checkpoint being served, or 503 with the reason, such as that the server is stopping."""
    if services.engine.draining:
        raise DrainingError("the server is stopping")
    model = services.models.current
    return Ready(model=model.id, step=model.step)
