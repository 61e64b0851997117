"""Whether the process lives, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter

from app.errors import DrainingError
from app.routes.documents import errors
from app.schemas import Health, Ready
from app.services import Parts

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """Always 200 while the event loop turns."""
    return Health()


@router.get("/readyz", summary="Is a checkpoint loaded?", responses=errors(503))
async def readyz(parts: Parts) -> Ready:
    """200 with the checkpoint being served, or 503 with the reason, such as that the server is stopping."""
    if parts.engine.draining:
        raise DrainingError("the server is stopping")
    model = parts.models.current
    return Ready(model=model.id, step=model.step)
