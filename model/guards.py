"""Detects an exploding training loss and a rising held-out loss.

Both guards depend only on the run's own losses, so a resumed run detects the same at the same update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import DivergedError

BLOCK = 100  # updates whose mean loss is checked together
FEWEST = 10  # minimum number of updates of the last, incomplete block that are checked when the run ends
EXPLODED = 1.25  # limit of the mean loss, as a multiple of the unigram loss of the same characters
WORSENED = 1.5  # the same, as a multiple of the run's best block or its first loss
OVERSHOT = 2.5  # WORSENED in the first block: AdaGrad's first 20 updates average 1.7 times the first loss
ROLLBACKS = 5  # maximum number of rollbacks of a run; each halves the learning rate
VALIDATIONS = 3  # measurements without a new minimum before a run counts as overfitting
RISEN = 1.01  # the held-out loss of an overfitting run, as a multiple of its minimum


@dataclass(frozen=True)
class Rollback:
    """A return from update `step` to the checkpoint of update `to`; `loss` is None if it was not finite."""

    step: int
    to: int
    loss: float | None


def block_start(step: int) -> int:
    """The first update of the block that contains `step`; the loss has been checked up to there."""
    return step // BLOCK * BLOCK


class LossGuard:
    """Raises DivergedError when the training loss is not finite or has exploded.

    A text has easy and hard parts, and a part in another language must not count as an explosion. So the mean
    loss of a block of updates is divided by the unigram loss of the same characters, and the ratio is
    compared with that of the best block so far and of the first update.

    Args:
        costs: the unigram loss of each window of an epoch, (W,), in nats per character.
    """

    def __init__(self, costs: NDArray[np.float64]) -> None:
        self._costs = costs
        self._sum = 0.0
        self._start = self._best = math.inf

    def note(self, step: int, loss: float) -> None:
        """Records the loss of update `step`, counted from 0, in nats per character. Raises DivergedError."""
        if not math.isfinite(loss):
            raise DivergedError(step, loss)
        if step == 0:
            self._start = loss
        self._sum += loss
        if (step + 1) % BLOCK == 0:
            self._judge(step, BLOCK)
            self._sum = 0.0

    def end(self, step: int) -> None:
        """Checks the last, incomplete block of a run that ends after `step` updates. Raises DivergedError."""
        if step % BLOCK >= FEWEST:
            self._judge(step - 1, step % BLOCK)

    def _judge(self, step: int, updates: int) -> None:
        """Checks the mean loss of the last `updates` updates, up to update `step`. Raises DivergedError."""
        windows = np.arange(step + 1 - updates, step + 1) % len(self._costs)
        cost = float(self._costs[windows].mean())
        if cost <= 0:  # only one distinct character: nothing to learn
            return
        mean = self._sum / updates
        # the first loss is about ln K for any characters, so it is divided by this block's cost
        best = min(self._best, self._start / cost)
        worsened = WORSENED if step >= BLOCK else OVERSHOT
        if mean / cost > max(EXPLODED, worsened * best):
            raise DivergedError(step, mean)
        self._best = min(best, mean / cost)

    def progress(self) -> dict[str, float | None]:
        """The state that an exact resume needs, as JSON values."""
        return {"sum": self._sum, "start": _finite(self._start), "best": _finite(self._best)}

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Restores what `progress` returned; checkpoints of earlier versions lack `start`."""
        self._sum = progress.get("sum", 0.0)
        self._start, self._best = _known(progress.get("start")), _known(progress.get("best"))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _known(value: float | None) -> float:
    return math.inf if value is None else value


class HeldOutGuard:
    """Detects overfitting: the held-out loss rises while the training loss still falls.

    Args:
        every: updates between two measurements of the held-out loss.

    Attributes:
        lowest: the lowest held-out loss so far, in nats per character; `step` is when it was measured.
        overfitting: whether the run is overfitting as of the last measurement.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self.lowest, self.step = math.inf, 0
        self._smooth: float | None = None
        self.overfitting = False

    def note(self, step: int, loss: float, smooth_loss: float | None) -> None:
        """Records the held-out and the smooth training loss after `step` updates. Idempotent."""
        if loss < self.lowest:
            self.lowest, self.step, self._smooth = loss, step, smooth_loss
        # before the first update there is no training loss; the held-out loss is as good
        then = self.lowest if self._smooth is None else self._smooth
        learning = smooth_loss is not None and smooth_loss < then
        waited = step - self.step >= VALIDATIONS * self._every
        self.overfitting = learning and waited and loss > RISEN * self.lowest

    def progress(self) -> dict[str, Any]:
        """The state that an exact resume needs, as JSON values."""
        return {
            "lowest": _finite(self.lowest),
            "step": self.step,
            "smooth": self._smooth,
            "overfitting": self.overfitting,
        }

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Restores what `progress` returned; an empty mapping gives a new guard."""
        self.lowest, self.step = _known(progress.get("lowest")), progress.get("step", 0)
        self._smooth = progress.get("smooth")
        self.overfitting = progress.get("overfitting", False)
