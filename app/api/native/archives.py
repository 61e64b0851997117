"""GET /runs/{name}/export and POST /runs/import: a run as one file."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from app.api.native.run_info import describe
from app.api.native.run_schemas import RunInfo
from app.api.openapi import errors
from app.api.services import ServicesDep, in_turn
from app.errors import InvalidRequestError
from app.intake.archive import export, import_run
from app.server.auth import Right, needs
from app.server.upload_body import received
from app.store.run import Run
from app.store.temporaries import TEMPORARY_PREFIX

router = APIRouter(tags=["training"])
ZIP = "application/zip"


@router.get(
    "/runs/{name}/export",
    summary="A run as one file",
    response_class=Response,
    responses=errors(404, 422, 503, 507) | {200: {"content": {ZIP: {}}}},
)
async def export_run(
    name: str,
    services: ServicesDep,
    step: Annotated[str | None, Query(description="A step, or `best`; by default the newest.")] = None,
    text: Annotated[bool, Query(description="Whether the text goes with it.")] = False,
) -> Response:
    """A zip: weights, configuration, vocabulary, curve, samples, and a model card."""
    run = await run_in_threadpool(services.runs.get, name)
    path, filename = await run_in_threadpool(_write, run, step, text)
    return FileResponse(path, media_type=ZIP, filename=filename, background=BackgroundTask(path.unlink))


def _write(run: Run, step: str | None, with_text: bool) -> tuple[Path, str]:
    with tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX, suffix=".zip", delete=False) as file:
        path = Path(file.name)
    try:
        return path, export(run, step, with_text, path)
    except BaseException:
        path.unlink()
        raise


@router.post(
    "/runs/import",
    status_code=201,
    summary="Take in an exported run",
    dependencies=[Depends(needs(Right.TRAIN))],
    responses=errors(400, 403, 404, 409, 413, 422, 503, 507),
    openapi_extra={
        "parameters": [{"name": "name", "in": "query", "required": False, "schema": {"type": "string"}}],
        "requestBody": {
            "required": True,
            "content": {
                ZIP: {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "string", "format": "binary"}},
                    }
                },
            },
        },
    },
)
async def import_(request: Request, response: Response, services: ServicesDep) -> RunInfo:
    """The zip that an export gave, raw or as the file of a form, becomes a run that can be served."""
    async with received(request, services.settings.max_body_bytes, services.uploads) as upload:
        if len(upload.sources) != 1:
            raise InvalidRequestError("file", f"must be one exported run. Given: {len(upload.sources)} files")
        content = upload.sources[0].content
        options = {key: value for key, value in upload.options.items() if key != "encoding"}
        run = await in_turn(services, partial(import_run, services.runs, options, content, services.limits))
    response.headers["location"] = f"/runs/{run.name}"
    return await run_in_threadpool(describe, services, run)
