"""GET /gradcheck: gradient checks on request, run in a helper process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from app.api.fields import CellName
from app.api.native.loss_curve import HTML, JSON, PNG, SVG, Shape, Theme
from app.api.native.pictures import picture_response
from app.api.native.run_schemas import GradcheckReport, ParameterReport
from app.api.openapi import errors
from app.api.services import Services, ServicesDep
from app.errors import InvalidRequestError
from app.reports.gradchecks import Method, Report
from app.server.accept import preferred
from app.server.etags import etag, not_modified
from app.server.middleware import HEAD, headers_only
from model.cells import CELLS

router = APIRouter(tags=["proof"])

MethodQuery = Annotated[
    Method,
    Query(description="`centred`: differences, as in the assignment; `complex-step`: no subtraction."),
]
CheckedModel = Annotated[
    str | None,
    Query(
        description="A checkpoint (`run`, `run@step`, `run@best`); by default the assignment's network, "
        "newly initialised.",
        examples=["gru"],
    ),
]
CheckedCell = Annotated[
    CellName | None,
    Query(description="Instead of a model, a new network with this cell and two layers of 20 units."),
]
NAMES = {"centred": "centred differences", "complex-step": "complex step"}


@router.get(
    "/gradcheck",
    summary="Check every gradient",
    response_model=GradcheckReport,
    responses=errors(404, 406, 422, 429, 503, 504)
    | {
        200: {
            "content": {JSON: {}, HTML: {}, SVG: {}, PNG: {}},
            "description": "The format that `Accept` prefers; JSON by default.",
        }
    },
)
async def gradcheck(
    request: Request,
    services: ServicesDep,
    method: MethodQuery = "centred",
    model: CheckedModel = None,
    cell: CheckedCell = None,
    theme: Theme = "light",
    shape: Shape = "wide",
) -> Any:
    """Compare the analytic gradient of every parameter with a numerical one, in float64.

    The first time this takes some seconds; later requests for the same check are answered immediately. A
    browser gets a page with a table and a picture.
    """
    kind = preferred(request.headers.get("accept"), (JSON, HTML, SVG, PNG))
    if kind == HTML:
        return services.assets.page(
            "gradcheck.html", method=method, model=model, cell=cell, methods=NAMES, cells=list(CELLS)
        )
    return await _answer(request, services, kind, (method, model, cell), (theme, shape), {"vary": "accept"})


@router.get(
    "/gradcheck.svg",
    summary="The check as a picture",
    response_class=Response,
    responses=errors(404, 422, 503, 504) | {200: {"content": {"image/svg+xml": {}}}},
)
async def gradcheck_svg(
    request: Request,
    services: ServicesDep,
    method: MethodQuery = "centred",
    model: CheckedModel = None,
    cell: CheckedCell = None,
    theme: Theme = "light",
    shape: Shape = "wide",
) -> Response:
    """Relative errors on a log scale, next to their limits and the figures of the assignment."""
    return await _answer(request, services, SVG, (method, model, cell), (theme, shape))


@router.get(
    "/gradcheck.png",
    summary="The check as a picture",
    response_class=Response,
    responses=errors(404, 422, 503, 504) | {200: {"content": {"image/png": {}}}},
)
async def gradcheck_png(
    request: Request,
    services: ServicesDep,
    method: MethodQuery = "centred",
    model: CheckedModel = None,
    cell: CheckedCell = None,
    theme: Theme = "light",
    shape: Shape = "wide",
) -> Response:
    """Relative errors on a log scale, next to their limits and the figures of the assignment."""
    return await _answer(request, services, PNG, (method, model, cell), (theme, shape))


async def _answer(
    request: Request,
    services: Services,
    kind: str,
    asked: tuple[Method, str | None, str | None],
    style: tuple[str, str],
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The check of (method, model, cell) as `kind`. HEAD computes nothing, since a check takes seconds."""
    method, model, cell = asked
    if model and cell:
        raise InvalidRequestError("cell", f"cannot be given together with model. Given: {cell}")
    checked = await services.model(model) if model else None
    if HEAD in request.scope:
        return headers_only(kind, headers)
    report = await services.gradchecks.report(checked, method, cell)
    if kind == JSON:
        return Response(describe(report).model_dump_json(), media_type=JSON, headers=headers)
    return await _picture(request, services, report, "svg" if kind == SVG else "png", style)


def describe(report: Report) -> GradcheckReport:
    """The report in the form of its JSON."""
    return GradcheckReport(
        model=report.model,
        method=report.method,
        step_size=report.step_size,
        passed=report.passed,
        seconds=report.seconds,
        cell=report.cell,
        hidden=report.hidden,
        layers=report.layers,
        sequence_length=report.sequence_length,
        vocabulary=report.vocabulary,
        parameters=[ParameterReport(**row) for row in report.parameters],
    )


async def _picture(
    request: Request,
    services: Services,
    report: Report,
    format: Literal["svg", "png"],
    style: tuple[str, str],
) -> Response:
    rows = report.parameters
    names = [row["name"].removeprefix("layer0." if report.layers == 1 else "") for row in rows]
    columns = [
        names,
        *([row[name] for row in rows] for name in ("relative_error", "limit", "assignment_figure")),
    ]
    title = f"{report.model} · {NAMES[report.method]} · h = {report.step_size:g}"
    key = ("gradcheck", title, json.dumps(columns), format, *style)
    tag = etag(*key)
    if (known := not_modified(request, tag)) is not None:
        return known
    picture = await services.renderer.picture(key, "draw_gradcheck", *columns, title, format, *style)
    return picture_response(picture, SVG if format == "svg" else PNG, tag)
