"""Every error that the service raises.

CharloomError
├── ServiceError
│   ├── NotReadyError          nothing to serve yet, or a run without a checkpoint
│   ├── ModelNotFoundError     no run, or no checkpoint, of that name
│   ├── NotFoundError          nothing else of that name
│   ├── InvalidRequestError    a request that is well-formed but outside a limit
│   │   └── PromptTooLongError
│   ├── OverloadedError        the queue is full; says when to come back
│   ├── RateLimitedError       more requests than this key or address may make
│   ├── UnauthorizedError      no API key, or none that is known
│   ├── ForbiddenError         the API key lacks the right
│   ├── ConflictError          not possible in the state that a run is in
│   ├── TooLargeError          more bytes than are taken
│   ├── DrainingError          the server is stopping
│   ├── DeadlineError          the work took longer than a request may take
│   └── RenderError            a picture or a check whose process failed
├── RunError
│   ├── RunNameError           a name that no run can have
│   ├── RunNotFoundError       no run of that name
│   ├── RunExistsError         the name of a new run is taken
│   └── RunFileError           a file of a run that is torn, foreign, or newer than this program
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
    """No run, or no checkpoint of it, has the name that was asked for."""


class NotFoundError(ServiceError):
    """Nothing of that name, where it is not a model that was asked for."""


class InvalidRequestError(ServiceError):
    """A request outside a limit. `field` names what to change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


class PromptTooLongError(InvalidRequestError):
    """A prompt of more characters than are read."""


class OverloadedError(ServiceError):
    """No room. `retry_after` is the number of seconds after which there should be."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(OverloadedError):
    """More requests than one client may make; others may."""


class UnauthorizedError(ServiceError):
    """An API key is needed, and was not given or is not known."""


class ForbiddenError(ServiceError):
    """The API key is known, and does not allow this."""


class UnknownInFieldError(UnknownCharacterError):
    """A field of a request, `field`, holds characters outside the vocabulary of `model`."""

    def __init__(self, unknown: Sequence[tuple[int, str]], field: str, model: str) -> None:
        super().__init__(unknown)
        self.field, self.model = field, model

    def __str__(self) -> str:
        return super().__str__().replace("this model", f"the model {self.model}", 1)


class UnusableTextError(TextError):
    """A text that no run can be made of; `findings` are all that is known of it, as plain JSON values."""

    def __init__(self, message: str, findings: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self.findings = findings


class ConflictError(ServiceError):
    """Not possible in the state that a run is in."""


class TooLargeError(ServiceError):
    """More bytes than are taken."""


class DrainingError(ServiceError):
    """The server is stopping and takes nothing new."""


class DeadlineError(ServiceError):
    """The work took longer than it may."""


class RenderError(ServiceError):
    """A helper process failed at a picture or a check."""


class RunError(CharloomError):
    """A run that cannot be made or read."""


class RunNameError(RunError):
    """A name that no run can have."""

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
    """A file of a run that is torn, foreign, or from a newer version."""


def shortened(value: Any, limit: int = 80) -> str:
    """A value as text for a message, cut to a bounded length."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
