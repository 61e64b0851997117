"""The pages that have no JSON form, and the assets of all pages."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from app.api.assets import Assets
from app.api.services import ServicesDep
from app.server.problems import Problem, printable
from model.cells import CELLS
from model.config import PRESETS, SETTINGS

IMMUTABLE = "public, max-age=31536000, immutable"

TITLES = {
    "not_found": "Page not found",
    "model_not_found": "Run or model not found",
    "not_ready": "Nothing to show yet",
    "overloaded": "The server is busy",
    "rate_limited": "Too many requests",
    "unauthorized": "An API key is needed",
    "forbidden": "Not allowed",
    "shutting_down": "The server is stopping",
}

router = APIRouter(include_in_schema=False)


def error_page(assets: Assets, problem: Problem) -> Response:
    """The page that a browser gets for an error: what went wrong, and what to do."""
    fallback = "The server could not do this" if problem.status >= 500 else "This cannot be shown"
    message = printable(problem.message)
    if problem.status == 401:  # the browser prompts for the key
        message = f"{message.partition(':')[0]}. Try again, and give the key as the password"
    response = assets.page(
        "error.html",
        title=TITLES.get(problem.code, fallback),
        message=message[:1].upper() + message[1:],
        passing=problem.retry_after is not None or problem.status >= 500 or problem.status == 401,
    )
    response.status_code = problem.status
    response.headers["cache-control"] = "no-store"
    return response


@router.get("/")
async def index(services: ServicesDep) -> Response:
    """The page: watch the training, generate text, look inside the network."""
    settings = services.settings
    return services.assets.page(
        "index.html",
        max_prompt=settings.max_prompt,
        max_length=settings.max_length,
        presets=list(PRESETS),
        cells=list(CELLS),
        settings={name: setting for name, setting in SETTINGS.items() if setting.label},
    )


@router.get("/docs")
async def docs(services: ServicesDep) -> Response:
    """The OpenAPI document, with forms to try each request."""
    return services.assets.page("docs.html")


@router.get("/favicon.ico")
async def favicon(services: ServicesDep) -> Response:
    """For browsers that request it without reading the page."""
    return Response(services.assets.icon.content, media_type=services.assets.icon.media_type)


@router.get("/assets/{name:path}")
async def asset(request: Request, services: ServicesDep) -> Response:
    """Scripts, styles and icons; their URLs change with their content."""
    found = services.assets.find(request.url.path)
    if found is None:
        raise HTTPException(404)
    headers = {"cache-control": IMMUTABLE, "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        return Response(found.compressed, media_type=found.media_type, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
