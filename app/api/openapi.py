"""The parts of the OpenAPI document that several routes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field

TAGS = [
    {"name": "text", "description": "Write text with a checkpoint, and score texts."},
    {"name": "OpenAI", "description": "The same for clients of OpenAI's API, at /v1."},
    {"name": "TGI", "description": "The same for clients of Text Generation Inference."},
    {"name": "training", "description": "Watch the runs: curves, samples, checkpoints."},
    {"name": "proof", "description": "Check every gradient numerically."},
    {"name": "health", "description": "For orchestrators."},
]
DESCRIPTION = """
A character-level recurrent network, written in NumPy, trains in the background and writes checkpoints; this
service always answers with the newest one. Every answer has the checkpoint, step and seed that produced the
text, and these three reproduce it byte for byte.

Losses are in nats per character. Errors are `{"error": {"code", "message", "field", "details"}}`.
"""
LICENSE = {"name": "MIT", "identifier": "MIT"}
CONTACT = {"name": "The authors of Charloom", "url": "https://pypi.org/project/charloom/"}
KEY_SCHEME = {"type": "http", "scheme": "bearer", "description": "A key of `CHARLOOM_API_KEYS`."}
TEXT, BINARY = {"type": "string"}, {"type": "string", "format": "binary"}
EVENTS = {"type": "string", "description": "Server-sent events; the description says what their data is."}
EVERYWHERE = (401, 429)  # keys and rate limits
EXAMPLES: dict[int, tuple[str, str, list[dict[str, Any]]]] = {
    400: ("invalid_json", "the body is not JSON: Expecting ',' delimiter", []),
    401: ("unauthorized", "an API key is needed: send it as Authorization: Bearer KEY", []),
    403: ("forbidden", "this needs a key with the right train; 'ann' has read", []),
    404: ("model_not_found", "no run named 'grue'. Runs: classic, gru", []),
    406: ("not_acceptable", "the answer can be application/json, text/html. Accept was: audio/*", []),
    409: ("conflict", "run 'gru' is finished and cannot be paused: fork it to continue training", []),
    413: ("body_too_large", "the body must be at most 1000000 bytes. Given: 2000000 bytes", []),
    416: (
        "range_not_satisfiable",
        "Range must begin before the end, which is at 91433 bytes. Given: bytes=99999-",
        [],
    ),
    422: (
        "unknown_characters",
        "the text contains characters that this model has never seen: 'ü' at position 5; remove or replace "
        "them",
        [{"position": 5, "character": "ü", "code_point": "U+00FC"}],
    ),
    429: ("overloaded", "256 texts are waiting; try again in 2 s", []),
    503: ("not_ready", "no checkpoint in the store yet: start a worker with `charloom worker`", []),
    507: ("store_full", "No space left on device: delete runs, or ask the operator of this server", []),
    424: ("deadline_exceeded", "the text was not finished within 60 s", []),
    504: ("deadline_exceeded", "the gradient check took longer than 120 s", []),
}


def complete_openapi(app: FastAPI, open_paths: Sequence[str], keys: bool) -> None:
    """Add what FastAPI cannot know: which routes need a key, and the schemas of answers that are not JSON."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["security"] = [{"key": []}] if keys else []
        if keys:
            document["components"]["securitySchemes"] = {"key": KEY_SCHEME}
            for path in open_paths:
                for operation in document["paths"][path].values():
                    operation["security"] = []
        for operation in (one for methods in document["paths"].values() for one in methods.values()):
            for answer in operation["responses"].values():
                for kind, content in answer.get("content", {}).items():
                    if not content.get("schema"):
                        is_text = kind.startswith("text/") or kind.endswith("+xml")
                        content["schema"] = TEXT if is_text else BINARY
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for these errors and those of every route."""
    return {status: _error(*EXAMPLES[status]) for status in sorted({*statuses, *EVERYWHERE})}


def errors_of_both(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for a route that also accepts TGI's bodies, whose errors have TGI's format."""
    return {
        status: description | {"model": ErrorResponse | TgiError}
        for status, description in errors(*statuses).items()
    }


def _error(code: str, message: str, details: list[dict[str, Any]]) -> dict[str, Any]:
    example = {"error": {"code": code, "message": message, "details": details}}
    content = {"application/json": {"example": example}}
    return {"model": ErrorResponse, "description": code.replace("_", " "), "content": content}


def openai_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` for errors in OpenAI's format, where 400 stands for the 422 of other routes."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": OpenAIError, "description": EXAMPLES[status][0].replace("_", " ")}
        for status in sorted({*statuses, *EVERYWHERE})
    }
    # a "default" keeps FastAPI from documenting a 422, which never occurs here
    return described | {"default": {"model": OpenAIError, "description": "any other error"}}


def tgi_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` for errors in TGI's format."""
    return {
        status: {"model": TgiError, "description": EXAMPLES[status][0].replace("_", " ")}
        for status in sorted({*statuses, *EVERYWHERE})
    }


def streamed() -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can also answer with server-sent events."""
    return {200: {"content": {"text/event-stream": {"schema": EVENTS}}}}


class Health(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """A checkpoint is loaded."""

    status: Literal["ready"] = "ready"
    model: str
    step: int


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stable, for programs.")
    message: str = Field(description="For people: what is wrong, the value given, the limit, what to do.")
    field: str | None = Field(None, description="The field with the error.")
    details: list[dict[str, Any]] = Field(
        description="The individual errors; unknown characters with their positions."
    )


class ErrorResponse(BaseModel):
    """Every error of the native routes."""

    error: ErrorBody


class OpenAIErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """Every error of these routes."""

    error: OpenAIErrorBody


class TgiError(BaseModel):
    """Every error of these routes."""

    error: str
    error_type: str
