"""GET /report: the assignment's report of any run, whole."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.api.native.run_info import ModelQuery
from app.api.openapi import errors
from app.api.services import ServicesDep
from app.reports.report import METHODS, ReportFormat, checked_model, policy, render
from app.server.accept import preferred

FORMS: dict[str, ReportFormat] = {"text/html": "html", "text/markdown": "markdown"}

router = APIRouter(tags=["proof"])


@router.get(
    "/report",
    summary="A run's whole report",
    response_class=Response,
    responses=errors(404, 406, 422, 503, 504) | {200: {"content": {kind: {} for kind in FORMS}}},
)
async def report(
    request: Request,
    services: ServicesDep,
    model: ModelQuery = None,
    format: Annotated[ReportFormat | None, Query(description="By default as `Accept` says.")] = None,
) -> Response:
    """Gradients beside the assignment's figures, loss curve, samples, and what to look for in them, counted.

    One page that needs no other, as HTML or Markdown, from the run's own files. The first one of a run takes
    seconds: its gradients are checked.
    """
    form = format or FORMS[preferred(request.headers.get("accept"), list(FORMS))]
    run = await run_in_threadpool(services.run, model)
    name = await run_in_threadpool(checked_model, run, services.models)
    checked = await services.model(name) if name else None
    checks = {method: (await services.gradchecks.report(checked, method)).parameters for method in METHODS}
    curve = await run_in_threadpool(services.curves.get, run)
    picture = await services.renderer.picture(
        ("loss-curve", curve.version, "svg", "light", "wide"),
        "draw_loss_curve",
        *(curve.drawn(), "svg", "light", "wide"),
    )
    content = await run_in_threadpool(render, run, curve, checks, picture, form)
    headers = {"content-security-policy": policy(), "cache-control": "no-cache", "vary": "accept"}
    return Response(content, media_type=f"text/{form}", headers=headers)
