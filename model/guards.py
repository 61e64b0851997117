"""Guard rails of a training: a loss that explodes and a held-out loss that rises are noticed.

Both depend on nothing but the run's own numbers, so a resumed run notices the same at the same update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import DivergedError

BLOCK = 100  # updates over which the loss is averaged before it is judged
EXPLODED = 1.25  # times what single characters' frequencies give for the same characters
WORSENED = 1.5  # times the best that the run has reached, in the same measure
ROLLBACKS = 5  # of one run, each at half the rate of the one before
VALIDATIONS = 3  # measurements in a row without a better one, before overfitting is spoken of
RISEN = 1.01  # times the lowest held-out loss


@dataclass(frozen=True)
class Rollback:
    """A return from update `step` to the checkpoint of update `to`; `loss` is None if it was no number."""

    step: int
    to: int
    loss: float | None


def block_start(step: int) -> int:
    """The first update of the block that `step` is in: up to there the loss has been judged."""
    return step // BLOCK * BLOCK


class LossGuard:
    """Raises DivergedError when the training loss is no number, or has exploded.

    Texts have easy and hard parts, and a part in another language is no explosion. So the loss of a block of
    updates is measured in units of what the characters' frequencies alone give for the very same characters.

    `costs` (W,) is that, in nats per character, for each window of an epoch.
    """

    def __init__(self, costs: NDArray[np.float64]) -> None:
        self._costs = costs
        self._sum = 0.0
        self._best = math.inf

    def note(self, step: int, loss: float) -> None:
        """The loss of update number `step`, counted from 0, nats per character."""
        if not math.isfinite(loss):
            raise DivergedError(step, loss)
        self._sum += loss
        if (step + 1) % BLOCK == 0:
            self._judge(step)

    def _judge(self, step: int) -> None:
        windows = np.arange(step + 1 - BLOCK, step + 1) % len(self._costs)
        cost = float(self._costs[windows].mean())
        mean, self._sum = self._sum / BLOCK, 0.0
        ratio = mean / cost if cost > 0 else 1.0  # a text of one character has no cost, and nothing to learn
        if ratio > max(EXPLODED, WORSENED * self._best):
            raise DivergedError(step, mean)
        self._best = min(self._best, ratio)

    def progress(self) -> dict[str, float | None]:
        """What an exact resume needs, as JSON values."""
        return {"sum": self._sum, "best": self._best if math.isfinite(self._best) else None}

    def restore(self, progress: Mapping[str, Any]) -> None:
        best = progress.get("best")
        self._sum, self._best = progress.get("sum", 0.0), math.inf if best is None else best


class HeldOutGuard:
    """Notices overfitting: the held-out loss rises while the training loss still falls.

    Attributes:
        lowest: the lowest held-out loss so far, nats per character; `step` is when it was measured.
        overfitting: whether it has risen since for several measurements.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self.lowest, self.step = math.inf, 0
        self._smooth: float | None = None
        self.overfitting = False

    def note(self, step: int, loss: float, smooth_loss: float | None) -> None:
        """The held-out and the smooth training loss after `step` updates. Twice the same changes nothing."""
        if loss < self.lowest:
            self.lowest, self.step, self._smooth = loss, step, smooth_loss
        learning = smooth_loss is not None and (self._smooth is None or smooth_loss < self._smooth)
        waited = step - self.step >= VALIDATIONS * self._every
        self.overfitting = learning and waited and loss > RISEN * self.lowest

    def progress(self) -> dict[str, Any]:
        """What an exact resume needs, as JSON values."""
        lowest = self.lowest if math.isfinite(self.lowest) else None
        return {"lowest": lowest, "step": self.step, "smooth": self._smooth, "overfitting": self.overfitting}

    def restore(self, progress: Mapping[str, Any]) -> None:
        lowest = progress.get("lowest")
        self.lowest, self.step = math.inf if lowest is None else lowest, progress.get("step", 0)
        self._smooth = progress.get("smooth")
        self.overfitting = progress.get("overfitting", False)
