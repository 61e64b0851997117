"""GET /metrics, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.concurrency import run_in_threadpool

from app.api.openapi import errors
from app.api.services import ServicesDep

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="For Prometheus",
    response_class=Response,
    responses=errors() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: ServicesDep) -> Response:
    """Counters, times and gauges in Prometheus's text format; docs/operations.md lists them."""
    return Response(await run_in_threadpool(services.metrics.expose), media_type=CONTENT_TYPE_PLAIN_0_0_4)
