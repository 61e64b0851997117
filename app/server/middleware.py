"""What every request passes through: an id, security headers, a line in the log, a bound on the body.

Pure ASGI, not `@app.middleware("http")`: behind that a route never learns that its client has gone. A layer
that has nothing to do returns the coroutine of the next one, and so takes no part in the answer.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.error_formats import code_of, respond
from app.server.headers import Pair, Pairs, completed, header
from app.server.problems import Problem, problem_of

REQUEST_ID = "x-request-id"
ID_HEADER = REQUEST_ID.encode()
UNLOGGED = ("/healthz", "/readyz", "/metrics")  # requested every few seconds, indefinitely
UPLOADS = re.compile(r"/runs|/runs/check|/runs/import|/runs/[^/]+/fork|/v1/files")
WRITING = ("/generate",)  # a GET of these writes a text
ENVELOPE = 100_000  # maximum bytes of a form in addition to its texts
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
    """The client's id of its request, or a new one if that cannot be used."""
    given = header(headers, ID_HEADER)
    if given is not None and USABLE_ID.fullmatch(given):
        return given
    return f"{random.getrandbits(128):032x}"  # not a secret, and the system's random numbers take 3 us


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """A line in the log for a request and its answer."""
    client = (scope.get("client") or ("unknown",))[0]
    extra = {"client": client, "method": scope["method"], "path": scope["path"], "status": status}
    logger.debug("request", extra=extra | {"milliseconds": round(1000 * seconds, 2)})


class RequestContext:
    """Gives every request an id, or keeps the client's, and every answer the id and security headers.

    Args:
        refused: is told status and code of every answer that is an error.
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

        # for the log, while the request's task lasts
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if status:
                raise  # the answer has begun: only ending the connection tells that it is not whole
            response = respond(problem_of(error), scope)
            await response(scope, receive, send_with_headers)
        finally:
            code = code_of(scope)
            if code is not None:
                self.refused(status, code)
            if self.access_log and scope["path"] not in UNLOGGED:
                log_request(scope, status, time.perf_counter() - began)


class HeadAsGet:
    """Answers HEAD as GET without the body: the rest of an answer is not made once its headers are there.

    A text is not written for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return self.app(scope, receive, send)
        return self._answer_head(scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in WRITING:
            await Response(media_type="application/json")(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            else:
                await send({"type": "http.response.body", "body": b""})
                raise HeadSentError

        with suppress(HeadSentError):
            await self.app({**scope, "method": "GET"}, receive, send_head)


class HeadSentError(Exception):
    """The headers of an answer to HEAD are sent: nothing more of it is needed."""


class BodyLimit:
    """Refuses bodies of more than `limit` bytes, announced or not, before they are held in memory.

    Uploads, which go to disk, have a limit of their own.
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
        if int(announced) <= limit:  # the server takes no more than was announced
            return self.app(scope, receive, send)
        problem = Problem(413, "body_too_large", _too_large(limit, f"{int(announced)} bytes"))
        # the body is not read, so the connection is of no further use
        return respond(problem, scope, {"connection": "close"})(scope, receive, send)


def _counted(receive: Receive, limit: int) -> Receive:
    """`receive`, which raises HTTPException (413) where a body turns out to be longer than the limit."""
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
