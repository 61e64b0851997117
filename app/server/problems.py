"""The table from errors to HTTP statuses and codes, and messages for validation errors."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import (
    ConflictError,
    DeadlineError,
    DrainingError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    PromptTooLongError,
    RateLimitedError,
    RenderError,
    RunExistsError,
    RunFileError,
    RunNameError,
    RunNotFoundError,
    TooLargeError,
    UnauthorizedError,
    UnusableTextError,
    shortened,
)
from app.store.files import DISK_FULL
from model.errors import CheckpointError, ConfigError, TextError, UnknownCharacterError

NATIVE_BODY, TGI_BODY = ("body-native",), ("body-tgi",)  # tags of the two bodies that /generate accepts
SHOWN = 100  # maximum number of details in an answer
TABLE: tuple[tuple[type[Exception], int, str], ...] = (
    (UnknownCharacterError, 422, "unknown_characters"),
    (InvalidRequestError, 422, "invalid_request"),
    (ConfigError, 422, "invalid_request"),
    (TextError, 422, "unusable_text"),
    (ModelNotFoundError, 404, "model_not_found"),
    (RunNotFoundError, 404, "model_not_found"),
    (RunNameError, 404, "model_not_found"),
    (NotFoundError, 404, "not_found"),
    (RunExistsError, 409, "run_exists"),
    (ConflictError, 409, "conflict"),
    (TooLargeError, 413, "body_too_large"),
    (UnauthorizedError, 401, "unauthorized"),
    (ForbiddenError, 403, "forbidden"),
    (RateLimitedError, 429, "rate_limited"),
    (OverloadedError, 429, "overloaded"),
    (NotReadyError, 503, "not_ready"),
    (DrainingError, 503, "shutting_down"),
    (CheckpointError, 503, "checkpoint_unusable"),
    (RunFileError, 503, "run_unusable"),
    (RenderError, 503, "helper_failed"),
    (DeadlineError, 504, "deadline_exceeded"),
    (TimeoutError, 504, "deadline_exceeded"),
    (OSError, 503, "store_unavailable"),
)
HTTP_CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large",
    416: "range_not_satisfiable",
}
RETRY_SECONDS = {"not_ready": 1.0, "shutting_down": 1.0}
COMPARISONS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}
LENGTHS = {
    "string_too_short": "character",
    "string_too_long": "character",
    "too_short": "item",
    "too_long": "item",
}
DEMANDS = {
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be a JSON object",
    "none_required": "is not supported: leave it out",
    "model_attributes_type": "must be a JSON object, sent with Content-Type: application/json",
}


@dataclass(frozen=True)
class Problem:
    """An error to answer with, before it gets the format of a route family.

    Attributes:
        status: HTTP status.
        code: stable, for programs.
        message: for people.
        field: the request's field to change, if one is at fault.
        details: the individual errors, at most SHOWN.
        retry_after: seconds after which to retry.
        openai_code: the code for OpenAI's clients, if it differs.
    """

    status: int
    code: str
    message: str
    field: str | None = None
    details: Sequence[Mapping[str, Any]] = ()
    retry_after: float | None = None
    openai_code: str | None = None

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds and `retry-after-ms`, if the problem is temporary."""
        if self.retry_after is None:
            return {}
        return {
            "Retry-After": str(max(1, math.ceil(self.retry_after))),
            "retry-after-ms": str(max(1, math.ceil(1000 * self.retry_after))),
        }

    def body(self) -> dict[str, Any]:
        """The body of the native format."""
        error: dict[str, Any] = {"code": self.code, "message": printable(self.message)}
        if self.field is not None:
            error["field"] = printable(self.field)
        error["details"] = [
            {key: printable(value) if isinstance(value, str) else value for key, value in detail.items()}
            for detail in self.details
        ]
        return {"error": error}


def problem_of(error: Exception) -> Problem:
    """The problem for an error of TABLE; any other error becomes a 500 without details."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return Problem(
            507, "store_full", f"{error.strerror}: delete runs, or ask the operator of this server"
        )
    for kind, status, code in TABLE:
        if isinstance(error, kind):
            return Problem(
                status,
                code,
                _message(error),
                field=getattr(error, "field", None),
                details=_details(error),
                retry_after=getattr(error, "retry_after", RETRY_SECONDS.get(code)),
                openai_code="context_length_exceeded" if isinstance(error, PromptTooLongError) else None,
            )
    return Problem(
        500,
        "internal_error",
        "the server failed to answer this request; its log has the details under the request id",
    )


def _message(error: Exception) -> str:
    """The text of an error; for an OSError, which may contain a path, the text of the system."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno:
        return os.strerror(error.errno)
    raised_here = type(error) in (OSError, TimeoutError)  # libraries raise types of their own
    return str(error) if raised_here else "the store cannot be used: see the log of the server"


def validation_problem(errors: Iterable[Mapping[str, Any]]) -> Problem:
    """The problem for a request that does not fit its schema, from pydantic's list of errors."""
    faults = _most_specific(list(errors))
    if any(fault["type"] == "json_invalid" for fault in faults):
        reason = faults[0].get("ctx", {}).get("error", "")
        return Problem(400, "invalid_json", f"the body is not JSON: {reason}")
    details = [
        {"field": _field_of(fault), "message": explain(_field_of(fault), fault)} for fault in faults[:SHOWN]
    ]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Problem(
        422, "invalid_request", details[0]["message"] + more, field=details[0]["field"], details=details
    )


def explain(name: str, fault: Mapping[str, Any]) -> str:
    """A message for one of pydantic's errors, with the limit and the value given."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "missing":
        return f"{name} is required"
    if kind == "extra_forbidden":
        return f"{name} is not a field of this request"
    if kind in COMPARISONS:
        key, sign = COMPARISONS[kind]
        demand = f"must be {sign} {_plain(context[key])}"
    elif kind in LENGTHS:
        demand = _length_demand(context, LENGTHS[kind])
    elif kind in ("literal_error", "enum"):
        demand = f"must be one of {context['expected']}"
    else:
        demand = DEMANDS.get(kind, f"is not usable: {fault['msg']}")
    return f"{name} {demand}. Given: {shortened(fault.get('input'))}"


def _length_demand(context: Mapping[str, Any], noun: str) -> str:
    longest, shortest = context.get("max_length"), context.get("min_length")
    if longest == 1 and noun == "character":
        return "must have exactly 1 character"  # the key of a bias
    limit, many = (shortest, "at least") if longest is None else (longest, "at most")
    return f"must have {many} {limit} {noun}{'' if limit == 1 else 's'}"


def printable(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot encode, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _field_of(fault: Mapping[str, Any]) -> str:
    """`stop.0` for a location ("body", "stop", 0), without the tags that pydantic adds for union members."""
    location = [part for part in _location(fault)[1:] if not (isinstance(part, str) and _is_union_tag(part))]
    return ".".join(map(str, location)) or str(fault["loc"][0])


def _location(fault: Mapping[str, Any]) -> tuple[Any, ...]:
    """The location of an error, without the tag of the body."""
    location = tuple(fault["loc"])
    return (*location[:1], *location[2:]) if location[1:2] in (NATIVE_BODY, TGI_BODY) else location


def _is_union_tag(part: str) -> bool:
    return part in {"str", "int", "float", "bool"} or "[" in part or part.startswith("constrained-")


def _most_specific(faults: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The deepest errors of each field: for a union, pydantic reports errors for each of its members."""
    depths: dict[Any, int] = {}
    for fault in faults:
        location = _location(fault)
        depths[location[:2]] = max(depths.get(location[:2], 0), len(location))
    return [fault for fault in faults if len(_location(fault)) == depths[_location(fault)[:2]]]


def _plain(limit: Any) -> Any:
    """2 instead of 2.0."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _details(error: Exception) -> Sequence[Mapping[str, Any]]:
    if isinstance(error, UnusableTextError):
        return error.findings[:SHOWN]
    if not isinstance(error, UnknownCharacterError):
        return ()
    return [
        {"position": position, "character": character, "code_point": f"U+{ord(character):04X}"}
        for position, character in error.unknown[:SHOWN]
    ]
