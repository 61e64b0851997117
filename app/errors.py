"""Every error that the service raises.

CharloomError
├── ServiceError
│   ├── NotReadyError          nothing to serve yet, or a run without a checkpoint
│   ├── ModelNotFoundError     no run, or no checkpoint, of that name
│   ├── NotFoundError          no other resource of that name
│   ├── InvalidRequestError    a request that is well-formed but outside a limit
│   │   └── PromptTooLongError
│   ├── OverloadedError        the queue is full; has the time to retry after
│   ├── RateLimitedError       over the rate limit of this key or address
│   ├── UnauthorizedError      no API key, or an unknown one
│   ├── ForbiddenError         the API key lacks the right
│   ├── ConflictError          not possible in the run's present state
│   ├── TooLargeError          more bytes than the limit
│   ├── DrainingError          the server is stopping
│   ├── DeadlineError          the work took longer than a request may take
│   └── RenderError            the helper process of a picture or a check failed
├── RunError
│   ├── RunNameError           not a valid run name
│   ├── RunNotFoundError       no run of that name
│   ├── RunExistsError         the name of a new run is taken
│   └── RunFileError           a run's file is damaged, foreign, or from a newer version
└── …                          those of model/errors.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model.errors import (
    CharloomError,
    TextError,
    UnknownCharacterError,
)


class ServiceError(CharloomError):
    """Base of the errors that only the service raises."""


class NotReadyError(ServiceError):
    """Nothing to serve yet."""


class ModelNotFoundError(ServiceError):
    """No run, or no checkpoint of it, has the requested name."""


class NotFoundError(ServiceError):
    """A resource other than a model does not exist."""


class InvalidRequestError(ServiceError):
    """A request outside a limit. `field` names what to change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


class PromptTooLongError(InvalidRequestError):
    """A prompt with more characters than the limit."""


class OverloadedError(ServiceError):
    """No capacity. `retry_after` is the estimated number of seconds until there is."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(OverloadedError):
    """One client has reached its rate limit; others are still served."""


class UnauthorizedError(ServiceError):
    """The API key is missing or unknown."""


class ForbiddenError(ServiceError):
    """The API key is known but lacks the right."""


class UnknownInFieldError(UnknownCharacterError):
    """A field of a request, `field`, holds characters outside the vocabulary of `model`."""

    def __init__(self, unknown: Sequence[tuple[int, str]], field: str, model: str) -> None:
        super().__init__(unknown)
        self.field, self.model = field, model

    def __str__(self) -> str:
        return super().__str__().replace("this model", f"the model {self.model}", 1)


class UnusableTextError(TextError):
    """A text that a run cannot train on. `findings` holds all findings about it, as JSON values."""

    def __init__(self, message: str, findings: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self.findings = findings


class ConflictError(ServiceError):
    """Not possible in the run's present state."""


class TooLargeError(ServiceError):
    """More bytes than the limit."""


class DrainingError(ServiceError):
    """The server is stopping and accepts no new requests."""


class DeadlineError(ServiceError):
    """The work exceeded its time limit."""


class RenderError(ServiceError):
    """The helper process of a picture or a check failed."""


class RunError(CharloomError):
    """A run cannot be created or read."""


class RunNameError(RunError):
    """Not a valid run name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name[:80]!r} is not a valid run name: use 1 to 64 characters of a-z, 0-9, '.', '_' and '-', "
            f"starting with a letter or digit"
        )


class RunNotFoundError(RunError):
    """The store has no run of that name."""


class RunExistsError(RunError):
    """The store has a run of that name already."""


class RunFileError(RunError):
    """A run's file is damaged, foreign, or from a newer version."""


def shortened(value: Any, limit: int = 80) -> str:
    """The `repr` of a value for a message, truncated to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
