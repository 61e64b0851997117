"""The exceptions that the model raises deliberately.

CharloomError
├── TextError                a text cannot be read or trained on; has the offset of the first fault
├── UnknownCharacterError    a text has characters outside the vocabulary; has their positions
├── ConfigError              a setting is out of range (also a ValueError)
├── CheckpointError          a file is not a Charloom checkpoint, or is damaged
└── DivergedError            the training loss is not finite, or has exploded
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path


class CharloomError(Exception):
    """Base class of all errors raised deliberately. Its message is meant to be shown to the user."""


class TextError(CharloomError):
    """A text cannot be read or trained on.

    Attributes:
        reason: what is wrong and what to do about it.
        offset: position of the first fault, in bytes before decoding and in characters after it, or None.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason if offset is None else f"{reason} (at offset {offset})")
        self.reason = reason
        self.offset = offset


class UnknownCharacterError(CharloomError):
    """A text contains characters that are not in the vocabulary.

    Attributes:
        unknown: (position, character) of each occurrence, in order.
    """

    def __init__(self, unknown: Sequence[tuple[int, str]]) -> None:
        self.unknown = list(unknown)
        shown = ", ".join(
            f"{character!r} at position {position}" for position, character in self.unknown[:10]
        )
        more = f" and {len(self.unknown) - 10} more" if len(self.unknown) > 10 else ""
        super().__init__(
            f"the text contains characters that this model has never seen: {shown}{more}; remove or replace "
            f"them"
        )


class ConfigError(CharloomError, ValueError):
    """A setting is out of range; `field` is its name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


class CheckpointError(CharloomError):
    """A file cannot be used as a checkpoint; `reason` says why. The message does not name its directory."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        super().__init__(f"{self.path.name}: {reason}")
        self.reason = reason


class DivergedError(CharloomError):
    """The training loss is not finite or has exploded.

    Args:
        step: the update at which this happened.
        loss: the loss of that update, in nats per character.
        rollbacks: how many times the run was rolled back before, each time to half the learning rate.
    """

    def __init__(self, step: int, loss: float, rollbacks: int = 0) -> None:
        what = "exploded to" if math.isfinite(loss) else "became"
        times = f"{rollbacks} time{'' if rollbacks == 1 else 's'}"
        tried = f", although it was rolled back {times}, with half the learning rate each time"
        super().__init__(
            f"the loss {what} {loss:.4g} at step {step}{tried if rollbacks else ''}; use a smaller learning "
            "rate or tighter clipping"
        )
        self.step, self.loss = step, loss
