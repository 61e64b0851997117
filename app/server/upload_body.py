"""The body of an upload (raw, form or JSON), written to disk piece by piece, and its options."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from typing import IO, Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from app.errors import InvalidRequestError, TooLargeError, shortened
from app.server.auth import client_of
from app.server.urlencoded import HEAD, is_form, split_form
from app.slots import UploadSlots
from app.store.files import Source
from model.config import RunConfig

PIECE = 1 << 20
URLENCODED = "application/x-www-form-urlencoded"
FORM_FIELDS = {
    *("text", "name", "encoding", "licence", "priority", "epochs", "step", "apart"),
    *(field.name for field in dataclasses.fields(RunConfig)),
}
RETRY_SECONDS = 5.0
# limits of a form; fields, and files up to LARGEST_HELD bytes, are held in memory
MOST_FILES, LARGEST_HELD = 200, 1 << 16
MOST_FIELDS, LONGEST_FIELD = 100, 200_000


@dataclass
class Upload:
    """A received upload: `options` from query and body, and `sources`, files positioned at their start."""

    options: dict[str, Any] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)


@asynccontextmanager
async def received(request: Request, body_limit: int, slots: UploadSlots) -> AsyncIterator[Upload]:
    """Receive the request's upload; after the block its files are closed and its slot is free.

    The middleware limits the total size; `body_limit` limits a JSON body, which is held in memory.
    Raises OverloadedError, InvalidRequestError, TooLargeError, HTTPException.
    """
    upload = Upload(dict(request.query_params))
    kind = Message()
    kind["content-type"] = request.headers.get("content-type", "")
    with slots.taken_by(client_of(request.scope), RETRY_SECONDS):
        try:
            if kind.get_content_type() == "multipart/form-data":
                await _take_form(request, upload)
            elif kind.get_content_type() == "application/json":
                await _take_json(request, upload, body_limit)
            else:
                await _take_raw(request, upload, kind.get_content_charset())
                if kind.get_content_type() == URLENCODED:
                    await run_in_threadpool(_take_urlencoded, upload, body_limit)
            yield upload
        except ClientDisconnect:
            raise HTTPException(400, "the upload ended before it was complete") from None
        finally:
            for source in upload.sources:
                source.content.close()


class _FormParser(MultiPartParser):
    def close_unfinished(self, form: FormData) -> bool:
        """Close the files that are cut off; return whether there are any."""
        whole = {id(value.file) for _, value in form.multi_items() if isinstance(value, UploadFile)}
        unfinished = [file for file in self._files_to_close_on_error if id(file) not in whole]
        for file in unfinished:
            file.close()
        return bool(unfinished)


async def _take_form(request: Request, upload: Upload) -> None:
    parser = _FormParser(
        request.headers,
        request.stream(),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=LONGEST_FIELD,
    )
    parser.spool_max_size = LARGEST_HELD
    try:
        form = await parser.parse()
    except MultiPartException as error:
        advice = ": send a longer text as a file of the form" if "maximum size" in error.message else ""
        raise HTTPException(400, f"the form cannot be read: {error.message.rstrip('.')}{advice}") from None
    if parser.close_unfinished(form):
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                value.file.close()
        raise HTTPException(400, "the form ends in the middle of a file: send the complete form")
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            upload.sources.append(Source((value.filename or "text.txt")[:200], value.file))
        elif name == "text":
            upload.sources.append(Source("text.txt", io.BytesIO(value.encode())))
        else:
            upload.options[name] = value


def _take_urlencoded(upload: Upload, limit: int) -> None:
    """Split a raw body into fields if it is a form, or if it is JSON, which `curl -d` declares as a form."""
    for source in upload.sources:
        head = source.content.read(HEAD)
        source.content.seek(0)
        if head.lstrip().startswith(b"{") and (given := _json_with_text(source.content, limit)) is not None:
            source.content.close()
            upload.sources = []
            upload.options.pop("encoding", None)
            _take_object(upload, given)
            return
        if not is_form(head, FORM_FIELDS):
            return
        upload.options.pop("encoding", None)
        fields, text = split_form(source.content, "text")
        source.content.close()
        if text is not None and "text" in fields:
            text.close()
            raise InvalidRequestError("text", "must be given once: send several texts as files of a form")
        name = fields.get("name") or upload.options.get("name")
        upload.sources = [] if text is None else [Source(_text_name(name), text)]
        upload.options |= fields
        return


async def _take_json(request: Request, upload: Upload, limit: int) -> None:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise TooLargeError(f"a JSON body must be at most {limit} bytes: send the text raw, or as a file")
    if not body:
        return
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body cannot be read as JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidRequestError("body", f"must be a JSON object. Given: {shortened(given)}")
    _take_object(upload, given)


def _json_with_text(content: IO[bytes], limit: int) -> dict[str, Any] | None:
    """The JSON object in a file, if it is one with a text; the file is at its beginning afterwards."""
    body = content.read(limit + 1)
    content.seek(0)
    with suppress(ValueError, RecursionError):
        given = json.loads(body) if len(body) <= limit else None
        return given if isinstance(given, dict) and "text" in given else None
    return None


def _take_object(upload: Upload, given: dict[str, Any]) -> None:
    """The options of a JSON object, and the text in it."""
    text = given.pop("text", None)
    upload.options |= {name: value for name, value in given.items() if value is not None}
    if isinstance(text, str):
        content = io.BytesIO(text.encode("utf-8", "surrogatepass"))
        upload.sources.append(Source("text.txt", content))
    elif text is not None:
        raise InvalidRequestError("text", f"must be a string. Given: {shortened(text)}")


async def _take_raw(request: Request, upload: Upload, charset: str | None) -> None:
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the upload
    upload.sources.append(Source(_text_name(upload.options.get("name")), file))
    waiting, size = bytearray(), 0
    async for piece in request.stream():
        waiting += piece
        size += len(piece)
        if len(waiting) >= PIECE:
            await run_in_threadpool(file.write, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(file.write, bytes(waiting))
    file.seek(0)
    if not size:
        upload.sources.clear()
        file.close()
    if charset and "encoding" not in upload.options:
        upload.options["encoding"] = charset


def _text_name(name: Any) -> str:
    """File name for a text sent without one, derived from the name of the run."""
    return f"{str(name or 'text')[:60]}.txt"
