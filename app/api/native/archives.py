"""GET /runs/{name}/export and POST /runs/import: runs as files."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import IO, Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app.api.native.run_info import describe
from app.api.native.run_schemas import RunInfo
from app.api.openapi import errors
from app.api.services import ServicesDep, in_turn
from app.errors import InvalidRequestError
from app.intake.archive import ExportState, export, export_state, import_run
from app.server.auth import Right, demand_texts, needs
from app.server.etags import etag, not_modified
from app.server.streaming import LEAST_SECONDS, LEAST_SPEED
from app.server.upload_body import received
from app.store.run import Run
from model.errors import CheckpointError

router = APIRouter(tags=["training"])
ZIP = "application/zip"


class ExportResponse(FileResponse):
    """Sends an unnamed temporary file inside `bound`; the file is deleted when the answer ends."""

    def __init__(
        self, file: IO[bytes], bound: AbstractAsyncContextManager[None], filename: str, tag: str
    ) -> None:
        status = os.fstat(file.fileno())
        path, headers = f"/dev/fd/{file.fileno()}", {"etag": tag, "cache-control": "no-cache"}
        super().__init__(path, 200, headers, ZIP, filename=filename, stat_result=status)
        self._file, self._bound = file, bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            async with self._bound:
                await super().__call__(scope, receive, send)


@router.get(
    "/runs/{name}/export",
    summary="A run as one file",
    response_class=Response,
    responses=errors(400, 403, 404, 416, 422, 429, 503, 507) | {200: {"content": {ZIP: {}}}},
)
async def export_run(
    request: Request,
    name: str,
    services: ServicesDep,
    step: Annotated[str | None, Query(description="A step, or `best`; by default the newest.")] = None,
    text: Annotated[bool, Query(description="Whether to include the text.")] = False,
) -> Response:
    """A zip: weights, configuration, vocabulary, curve, samples, and a model card.

    A part of it can be requested with `Range`.

    If the server has keys, the text needs a key with the right `texts`.
    """
    if text:
        demand_texts(request.scope)
    run = await run_in_threadpool(services.runs.get, name)
    state = await run_in_threadpool(export_state, run, step, text)
    current = etag(*state.content)
    if (known := not_modified(request, current)) is not None:
        return known
    services.exported.check(request, current)
    services.downloads.take(LEAST_SECONDS)
    try:
        # one at a time: each zip takes a core, and many would slow down the event loop
        work = partial(_write, run, step, text)
        file, filename, tag = await to_thread.run_sync(work, limiter=services.packing)
    except BaseException:
        services.downloads.give_back()
        raise
    size = os.fstat(file.fileno()).st_size
    try:
        services.exported.note(tag, size)
        services.exported.check(request, tag)
    except BaseException:
        file.close()
        services.downloads.give_back()
        raise
    bound = services.downloads.sending(LEAST_SECONDS + size / LEAST_SPEED)
    return ExportResponse(file, bound, filename, tag)


def _write(run: Run, step: str | None, with_text: bool) -> tuple[IO[bytes], str, str]:
    """The zip in an unnamed temporary file, its file name for the client, and its entity tag."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the answer
    try:
        filename, before = _export(run, step, with_text, file)
        file.flush()
        after = export_state(run, step, with_text)
        os.utime(file.fileno(), (after.changed, after.changed))
        # training may have written more in the meantime
        same = after.content == before.content
        return file, filename, etag(*after.content) if same else etag(secrets.token_hex())
    except BaseException:
        file.close()
        raise


def _export(run: Run, step: str | None, with_text: bool, file: IO[bytes]) -> tuple[str, ExportState]:
    """Export the run; return file name and state. Retries if the checkpoint is replaced meanwhile."""
    before = export_state(run, step, with_text)
    while True:
        try:
            return export(run, step, with_text, file), before
        except (CheckpointError, FileNotFoundError):
            tried, before = before, export_state(run, step, with_text)
            if tried == before:
                raise
            file.seek(0)
            file.truncate()


@router.post(
    "/runs/import",
    status_code=201,
    summary="Import an exported run",
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
    """Import a zip written by an export, sent raw or as the file of a form.

    It becomes a run that can be served.
    """
    async with received(request, services.settings.max_body_bytes, services.uploads) as upload:
        if len(upload.sources) != 1:
            raise InvalidRequestError("file", f"must be one exported run. Given: {len(upload.sources)} files")
        content = upload.sources[0].content
        options = {key: value for key, value in upload.options.items() if key != "encoding"}
        run = await in_turn(services, partial(import_run, services.runs, options, content, services.limits))
    response.headers["location"] = f"/runs/{run.name}"
    return await run_in_threadpool(describe, services, run)
