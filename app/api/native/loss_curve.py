"""GET /loss-curve: the loss curve of a run as a page, a picture or points."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from app.api.native.pictures import picture_response
from app.api.native.run_info import ModelQuery, list_runs
from app.api.native.run_schemas import LossCurve
from app.api.openapi import errors
from app.api.services import Services, ServicesDep
from app.server.accept import preferred
from app.server.etags import etag, not_modified
from app.server.streaming import bounded_answer
from app.store.loss_curves import Curve

JSON, HTML, SVG, PNG = "application/json", "text/html", "image/svg+xml", "image/png"

TABLE_ROWS = 20

router = APIRouter(tags=["training"])

Points = Annotated[int, Query(ge=10, le=100_000, description="Approximate maximum number of points.")]
Theme = Annotated[Literal["light", "dark"], Query(description="Colours of the picture.")]
Shape = Annotated[Literal["wide", "narrow"], Query(description="Proportions of the picture.")]


@router.get(
    "/loss-curve",
    summary="The loss curve as a page, picture or points",
    response_model=LossCurve,
    responses=errors(404, 406, 422, 429, 503, 504)
    | {
        200: {
            "content": {JSON: {}, HTML: {}, SVG: {}, PNG: {}},
            "description": "The format that `Accept` prefers; JSON by default.",
        }
    },
)
async def loss_curve(
    request: Request,
    services: ServicesDep,
    model: ModelQuery = None,
    points: Points = 2000,
    theme: Theme = "light",
    shape: Shape = "wide",
) -> Response:
    """A browser gets a page that follows the training, an image request gets the picture.

    All other clients get the points.
    """
    kind = preferred(request.headers.get("accept"), (JSON, HTML, SVG, PNG))
    if kind == HTML:
        runs = await run_in_threadpool(list_runs, services)
        curve = await run_in_threadpool(_curve, services, model)
        response: Response = services.assets.page(
            "loss-curve.html", curve=curve, runs=runs, **_numbers(curve)
        )
    elif kind == JSON:
        response = await _points(request, services, model, points)
    else:
        response = await _picture(request, services, model, kind, (theme, shape))
    response.headers["vary"] = "accept"
    return response


@router.get("/loss-curve.json", summary="The points", responses=errors(404, 422, 503))
async def loss_curve_json(
    request: Request, services: ServicesDep, model: ModelQuery = None, points: Points = 2000
) -> LossCurve:
    """The same points as the default answer of /loss-curve."""
    return await _points(request, services, model, points)  # type: ignore[return-value]


@router.get(
    "/loss-curve.svg",
    summary="The picture as SVG",
    response_class=Response,
    responses=errors(404, 422, 503, 504) | {200: {"content": {SVG: {}}}},
)
async def loss_curve_svg(
    request: Request,
    services: ServicesDep,
    model: ModelQuery = None,
    theme: Theme = "light",
    shape: Shape = "wide",
) -> Response:
    """Training, smooth and held-out loss over updates, with the checkpoints and the best one marked."""
    return await _picture(request, services, model, SVG, (theme, shape))


@router.get(
    "/loss-curve.png",
    summary="The picture as PNG",
    response_class=Response,
    responses=errors(404, 422, 503, 504) | {200: {"content": {PNG: {}}}},
)
async def loss_curve_png(
    request: Request,
    services: ServicesDep,
    model: ModelQuery = None,
    theme: Theme = "light",
    shape: Shape = "wide",
) -> Response:
    """Training, smooth and held-out loss over updates, with the checkpoints and the best one marked."""
    return await _picture(request, services, model, PNG, (theme, shape))


async def _points(request: Request, services: Services, model: str | None, points: int) -> Response:
    curve = await run_in_threadpool(_curve, services, model)
    tag = etag("points", curve.version, points)
    if (known := not_modified(request, tag)) is not None:
        return known
    body = await run_in_threadpool(_curve_json, curve, points)
    return bounded_answer(body, JSON, {"etag": tag, "cache-control": "no-cache"}, services.answers)


async def _picture(
    request: Request, services: Services, model: str | None, media_type: str, style: tuple[str, str]
) -> Response:
    curve = await run_in_threadpool(_curve, services, model)
    format = "svg" if media_type == SVG else "png"
    tag = etag("loss-curve", curve.version, format, *style)
    if (known := not_modified(request, tag)) is not None:
        return known
    thinned = await run_in_threadpool(curve.drawn)
    picture = await services.renderer.picture(
        ("loss-curve", curve.version, format, *style), "draw_loss_curve", thinned, format, *style
    )
    return picture_response(picture, media_type, tag)


def _numbers(curve: Curve) -> dict[str, Any]:
    """The newest value of each loss, and the points of the page's table, newest first."""
    newest: dict[str, Any] = dict.fromkeys(("smooth_loss", "summed_smooth_loss", "validation_loss"))
    for point in curve.points:
        newest |= {name: point[name] for name in newest if point.get(name) is not None}
    measured = [point for point in curve.points if point.get("validation_loss") is not None]
    rows = measured if len(measured) > 1 else curve.points
    count = min(len(rows), TABLE_ROWS)
    spread = [rows[round(place * (len(rows) - 1) / max(1, count - 1))] for place in range(count)]
    return {
        "newest": newest | {"measured": measured[-1]["step"] if measured else None},
        "rows": spread[::-1],
    }


def _curve(services: Services, model: str | None) -> Curve:
    return services.curves.get(services.run(model))


def _curve_json(curve: Curve, points: int) -> bytes:
    return to_json(_curve_body(curve, points), inf_nan_mode="null")


def _curve_body(curve: Curve, points: int) -> dict[str, Any]:
    thinned = curve.thinned(points)
    return {
        "run": curve.run,
        "state": curve.state,
        "step": curve.step,
        "steps": curve.steps,
        "recorded": curve.recorded,
        "points": [
            {name: point.get(name) for name in CURVE_FIELDS} | {"step": point["step"]}
            for point in thinned.points
        ],
        "checkpoints": curve.checkpoints,
        "best": curve.best,
        "baselines": curve.baselines,
        "rollbacks": curve.rollbacks,
        "overfitting_since": curve.overfitting_since,
        "warnings": curve.warnings,
        "characters_per_update": curve.characters_per_update,
        "sequence_length": curve.sequence_length,
        "version": curve.version,
    }


CURVE_FIELDS = (
    "step",
    "loss",
    "smooth_loss",
    "summed_smooth_loss",
    "validation_loss",
    "seconds",
    "learning_rate",
)
