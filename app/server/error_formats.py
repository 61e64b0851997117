"""Error formats: each family of routes answers as its clients expect.

- native: `{"error": {"code", "message", "field"?, "details"}}`
- OpenAI's (`/v1/...`): `{"error": {"message", "type", "param", "code"}}`, with status 400 instead of 422
- TGI's (`POST /`, `/generate_stream`, and `/generate` with `inputs`): `{"error": str, "error_type": str}`
- browsers that open an address: a page
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from enum import Enum
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.responses import Response

from app.server.accept import accepts_page
from app.server.problems import Problem, printable

TGI_PATHS = ("/", "/generate_stream")
VLLM_PATHS = (
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
)  # errors as in OpenAI's routes
TGI_TYPES = {401: "unauthorized", 404: "not_found", 413: "validation", 422: "validation", 429: "overloaded"}
OPENAI_CODES = {"unauthorized": "invalid_api_key", "rate_limited": "rate_limit_exceeded"}


class Family(Enum):
    """The API whose clients a route serves."""

    NATIVE = "native"
    OPENAI = "openai"
    TGI = "tgi"


def family_of(scope: Mapping[str, Any]) -> Family:
    """The family of an ASGI request: the one it was marked with, or else by its path."""
    told = scope.get("state", {}).get("family")
    if isinstance(told, Family):
        return told
    path = scope["path"]
    if path == "/v1" or path.startswith("/v1/") or path in VLLM_PATHS:
        return Family.OPENAI
    return Family.TGI if path in TGI_PATHS and scope["method"] == "POST" else Family.NATIVE


def mark(scope: MutableMapping[str, Any], family: Family) -> None:
    """Set the family of a request whose path does not determine it."""
    scope.setdefault("state", {})["family"] = family


def code_of(scope: Mapping[str, Any]) -> str | None:
    """The code of the problem that a request was answered with, if any."""
    code = scope.get("state", {}).get("code")
    return code if isinstance(code, str) else None


def status_of(problem: Problem, family: Family) -> int:
    """The HTTP status that the family's clients expect."""
    if family is Family.OPENAI and problem.status == 422:
        return 400
    if family is Family.TGI and problem.status in (400, 504):
        return {400: 422, 504: 424}[problem.status]
    return problem.status


def body_of(problem: Problem, family: Family) -> dict[str, Any]:
    """The body of the answer, also for events of a stream."""
    if family is Family.OPENAI:
        return {"error": _openai(problem)}
    if family is Family.TGI:
        kind = TGI_TYPES.get(status_of(problem, family), "generation")
        return {"error": printable(problem.message), "error_type": kind}
    return problem.body()


def respond(
    problem: Problem, scope: MutableMapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """The response to a problem: a page for a browser, otherwise the format of the request's family.

    The application renders the page, if its state has an `error_page`. The code is kept in the scope
    (`code_of`).
    """
    family = family_of(scope)
    scope.setdefault("state", {})["code"] = problem.code
    merged = {**problem.headers(), **(headers or {})}
    draw = getattr(getattr(scope.get("app"), "state", None), "error_page", None)
    response: Response
    if draw is not None and accepts_page(Headers(scope=scope).get("accept", "")):
        response = draw(problem)
        response.headers.update(merged)
    else:
        response = JSONResponse(body_of(problem, family), status_of(problem, family), merged)
    return response


def _openai(problem: Problem) -> dict[str, Any]:
    if problem.status == 429:
        kind = "rate_limit_error"
    else:
        kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    field = "model" if problem.code == "model_not_found" else problem.field
    return {
        "message": printable(problem.message),
        "type": kind,
        "param": None if field is None else printable(field),
        "code": problem.openai_code or OPENAI_CODES.get(problem.code, problem.code),
    }
