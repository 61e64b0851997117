"""Middleware for every request: request id, security headers, access log, HEAD, and the limit on bodies.

Pure ASGI rather than `@app.middleware("http")`, which hides a client's disconnect from the routes. A layer
with nothing to do returns the coroutine of the next one, which costs nothing during the answer.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.error_formats import code_of, respond
from app.server.headers import Pair, Pairs, completed, header
from app.server.problems import Problem, problem_of

HEAD = "charloom.head"  # in the scope of a request for the headers of a GET alone
REQUEST_ID = "x-request-id"
ID_HEADER = REQUEST_ID.encode()
UNLOGGED = ("/healthz", "/readyz", "/metrics")  # requested every few seconds
UPLOADS = re.compile(r"/runs|/runs/check|/runs/import|/runs/[^/]+/fork|/v1/files")
WRITING = ("/generate",)  # a GET request to these writes a text
ENVELOPE = 100_000  # bytes that a form may have in addition to its texts
USABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Pairs = [
    (b"content-security-policy", PAGE_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

logger = logging.getLogger("app.requests")


def id_of(headers: Iterable[Pair]) -> str:
    """The request id sent by the client, or a new one if there is none or it is invalid."""
    given = header(headers, ID_HEADER)
    if given is not None and USABLE_ID.fullmatch(given):
        return given
    return f"{random.getrandbits(128):032x}"  # need not be secret, and `os.urandom` takes 3 us


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """Write the access log line of a request."""
    client = (scope.get("client") or ("unknown",))[0]
    extra = {"client": client, "method": scope["method"], "path": scope["path"], "status": status}
    logger.debug("request", extra=extra | {"milliseconds": round(1000 * seconds, 2)})


class RequestContext:
    """Gives every request an id, or keeps the client's, and adds the id and security headers to every answer.

    Args:
        refused: called with the status and code of every error.
    """

    def __init__(self, app: ASGIApp, access_log: bool, refused: Callable[[int, str], object]) -> None:
        self.app, self.access_log, self.refused = app, access_log, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = id_of(scope["headers"])
        fixed = [(ID_HEADER, request_id.encode()), *SECURITY_HEADERS]
        began, status = time.perf_counter(), 0

        def send_with_headers(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = completed(message["headers"], fixed)
            return send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if status:
                raise  # the answer has begun: only a closed connection shows that it is incomplete
            response = respond(problem_of(error), scope)
            await response(scope, receive, send_with_headers)
        finally:
            code = code_of(scope)
            if code is not None:
                self.refused(status, code)
            if self.access_log and scope["path"] not in UNLOGGED:
                log_request(scope, status, time.perf_counter() - began)


class HeadAsGet:
    """Answers HEAD like GET without the body, and stops the work once the headers are sent.

    No text is generated for a HEAD request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return self.app(scope, receive, send)
        return self._answer_head(scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in WRITING:
            await headers_only("application/json")(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            else:
                await send({"type": "http.response.body", "body": b""})
                raise HeadSentError

        with suppress(HeadSentError):
            await self.app({**scope, "method": "GET", HEAD: True}, receive, send_head)


def headers_only(media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to HEAD where the length of the body is not known without computing it."""
    response = Response(None, 200, headers, media_type)
    del response.headers["content-length"]
    return response


class HeadSentError(Exception):
    """Stops the work on an answer to HEAD once its headers are sent."""


class BodyLimit:
    """Refuses bodies of more than `limit` bytes, with or without Content-Length, before they fill memory.

    Uploads, which go to disk, have their own limit.
    """

    def __init__(self, app: ASGIApp, limit: int, uploads: int) -> None:
        self.app, self.limit, self.uploads = app, limit, uploads + ENVELOPE

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        encoding = header(scope["headers"], b"content-encoding")
        if encoding and encoding.lower() != "identity":
            message = f"a body must be sent uncompressed, without Content-Encoding. Given: {encoding[:40]}"
            return respond(Problem(415, "unsupported_encoding", message), scope)(scope, receive, send)
        uploading = scope["method"] == "POST" and UPLOADS.fullmatch(scope["path"])
        limit = self.uploads if uploading else self.limit
        announced = header(scope["headers"], b"content-length")
        if announced is None or not announced.isdecimal():
            return self.app(scope, _counted(receive, limit), send)
        if int(announced) <= limit:  # the parser reads no more than that
            return self.app(scope, receive, send)
        problem = Problem(413, "body_too_large", _too_large(limit, f"{int(announced)} bytes"))
        # the unread body makes the connection unusable
        return respond(problem, scope, {"connection": "close"})(scope, receive, send)


def _counted(receive: Receive, limit: int) -> Receive:
    """Wrap `receive` to raise HTTPException (413) when the body exceeds the limit."""
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, _too_large(limit, "more"))
        return message

    return receive_counted


def _too_large(limit: int, given: str) -> str:
    return f"the body must be at most {limit} bytes. Given: {given}"
