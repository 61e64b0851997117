"""GET /info: the server's model and limits, for clients of TGI."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from pydantic import BaseModel

from app.api.openapi import errors
from app.api.services import ServicesDep
from app.api.tgi.schemas import MOST_ALTERNATIVES

router = APIRouter(tags=["TGI"])


class TgiInfo(BaseModel):
    """The default model, and the limits of a request. A token is a character."""

    model_id: str
    model_sha: str
    model_dtype: str = "float32"
    model_device_type: str = "cpu"
    model_pipeline_tag: str = "text-generation"
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_top_n_tokens: int = MOST_ALTERNATIVES
    max_input_tokens: int
    max_total_tokens: int
    max_client_batch_size: int = 1
    validation_workers: int = 1
    router: str = "charloom"
    version: str


@router.get("/info", summary="About the server", responses=errors(503))
async def info(services: ServicesDep) -> TgiInfo:
    """For clients of TGI."""
    model, settings = services.models.current, services.settings
    return TgiInfo(
        model_id=model.id,
        model_sha=model.digest,
        max_concurrent_requests=services.engine.room,
        max_best_of=settings.max_n,
        max_stop_sequences=settings.max_stop,
        max_input_tokens=settings.max_prompt,
        max_total_tokens=settings.max_prompt + settings.max_length,
        version=version("charloom"),
    )
