"""/v1/files: texts that OpenAI's clients upload before they create a job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import IO, Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from app.api.openai.job_schemas import FileDeleted, FileList, FileObject
from app.api.openai.paging import page
from app.api.openapi import openai_errors
from app.api.services import ServicesDep, in_turn
from app.errors import InvalidRequestError, shortened
from app.server.auth import Right, demand_texts, needs
from app.server.streaming import LEAST_SECONDS, LEAST_SPEED, BoundedStream
from app.server.upload_body import received
from app.store.uploads import UploadedFile

PIECE = 1 << 16
PURPOSES = ("fine-tune", "user_data")
IGNORED = ("expires_after[anchor]", "expires_after[seconds]")

router = APIRouter(tags=["OpenAI"])


@router.post(
    "/v1/files",
    summary="Upload a text",
    dependencies=[Depends(needs(Right.TRAIN))],
    responses=openai_errors(400, 403, 409, 413, 503, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file", "purpose"],
                        "properties": {
                            "file": {"type": "string", "format": "binary"},
                            "purpose": {"type": "string", "enum": list(PURPOSES)},
                        },
                    }
                }
            },
        }
    },
)
async def upload(request: Request, services: ServicesDep) -> FileObject:
    """Store a file for a job: a plain text, a zip of texts, or examples as JSON lines."""
    async with received(request, services.settings.max_body_bytes, services.uploads) as given:
        options = {key: value for key, value in given.options.items() if key not in IGNORED}
        purpose = options.pop("purpose", None)
        if len(given.sources) != 1:
            raise InvalidRequestError("file", f"must be one file of a form. Given: {len(given.sources)}")
        if purpose not in PURPOSES:
            raise InvalidRequestError(
                "purpose", f"must be {' or '.join(PURPOSES)}. Given: {shortened(purpose)}"
            )
        if unknown := sorted(options):
            raise InvalidRequestError(unknown[0][:80], "is not a field of this request")
        return _object(await in_turn(services, partial(services.files.add, given.sources[0], purpose)))


@router.get("/v1/files", summary="Uploaded files", responses=openai_errors(400, 503))
async def files(
    services: ServicesDep,
    purpose: str | None = None,
    after: Annotated[str | None, Query(description="The last id of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> FileList:
    """All files that were uploaded for jobs."""
    found = [
        file
        for file in await run_in_threadpool(services.files.list)
        if purpose is None or file.purpose == purpose
    ]
    shown, more = page(found if order == "desc" else found[::-1], after, limit, lambda file: file.id)
    return FileList(data=[_object(file) for file in shown], has_more=more)


@router.get("/v1/files/{file_id}", summary="One file", responses=openai_errors(404, 503))
async def file(file_id: str, services: ServicesDep) -> FileObject:
    """The metadata of a file."""
    return _object(await run_in_threadpool(services.files.get, file_id))


@router.get(
    "/v1/files/{file_id}/content",
    summary="Content of a file",
    response_class=Response,
    responses=openai_errors(403, 404, 429, 503) | {200: {"content": {"application/octet-stream": {}}}},
)
async def content(request: Request, file_id: str, services: ServicesDep) -> Response:
    """The bytes as uploaded. If the server has keys, this needs a key with the right `texts`."""
    demand_texts(request.scope)
    opened = await run_in_threadpool(services.files.open, file_id)
    size = os.fstat(opened.fileno()).st_size
    try:
        services.downloads.take(LEAST_SECONDS)
    except BaseException:
        opened.close()
        raise
    bound = services.downloads.sending(LEAST_SECONDS + size / LEAST_SPEED)
    headers = {"content-disposition": "attachment", "content-length": str(size)}
    pieces = iterate_in_threadpool(_pieces(opened))
    return BoundedStream(pieces, bound, "application/octet-stream", headers)


def _pieces(opened: IO[bytes]) -> Iterator[bytes]:
    with opened:
        while piece := opened.read(PIECE):
            yield piece


@router.delete(
    "/v1/files/{file_id}",
    summary="Delete a file",
    dependencies=[Depends(needs(Right.ADMIN))],
    responses=openai_errors(403, 404, 503),
)
async def remove(file_id: str, services: ServicesDep) -> FileDeleted:
    """Delete a file. Runs created from it keep their text."""
    await run_in_threadpool(services.files.delete, file_id)
    return FileDeleted(id=file_id)


def _object(file: UploadedFile) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.size,
        created_at=int(file.created),
        filename=file.filename,
        purpose=file.purpose,
    )
