"""Every error that the model raises on purpose, as a tree.

CharloomError
├── TextError                a text that cannot be read or trained on, with the offset where it goes wrong
├── UnknownCharacterError    a text with characters outside the vocabulary, with their positions
├── ConfigError              a setting outside its range (also a ValueError)
├── CheckpointError          a file that is not a checkpoint of this project, or not whole
└── DivergedError            a training whose loss is no longer a number, or has exploded
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path


class CharloomError(Exception):
    """Base of all errors raised on purpose; its text is written for the person who gets it."""


class TextError(CharloomError):
    """A text that cannot be read or trained on.

    Attributes:
        reason: what is wrong and what to do about it.
        offset: byte (undecoded) or character (decoded) position of the first fault, or None.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason if offset is None else f"{reason} (at offset {offset})")
        self.reason = reason
        self.offset = offset


class UnknownCharacterError(CharloomError):
    """A text holds characters that the vocabulary does not have.

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
    """A setting outside its range. `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


class CheckpointError(CharloomError):
    """A file that cannot be used as a checkpoint; `reason` says why. The message names no folder."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        super().__init__(f"{self.path.name}: {reason}")
        self.reason = reason


class DivergedError(CharloomError):
    """The training loss is no longer finite, or has exploded; `step` is the update that produced it.

    `rollbacks` is how often the run had been taken back, at half the rate each time, before this.
    """

    def __init__(self, step: int, loss: float, rollbacks: int = 0) -> None:
        what = "exploded to" if math.isfinite(loss) else "became"
        tried = (
            f", although it was rolled back {rollbacks} times, to a smaller learning rate each time"
            if rollbacks
            else ""
        )
        super().__init__(
            f"the loss {what} {loss:.4g} at step {step}{tried}; "
            "use a smaller learning rate or tighter clipping"
        )
        self.step, self.loss = step, loss
