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
FEWEST = 10  # updates of an unfinished block that are judged when the run ends
EXPLODED = 1.25  # times what single characters' frequencies give for the same characters
WORSENED = 1.5  # times the best that the run has reached, the loss that it began with included
OVERSHOT = 2.5  # the same within the first block: AdaGrad's first 20 updates average 1.7 times the start
ROLLBACKS = 5  # of one run, each at half the rate of the one before
VALIDATIONS = 3  # measurements in a row without a better one, before overfitting is spoken of
RISEN = 1.01  # times the lowest held-out loss


@dataclass(frozen=True)
class Rollback:
    """A return from update `step` to the checkpoint of update `to`; `loss` is None if it was not a number."""

    step: int
    to: int
    loss: float | None


def block_start(step: int) -> int:
    """The first update of the block that `step` is in: up to there the loss has been judged."""
    return step // BLOCK * BLOCK


class LossGuard:
    """Raises DivergedError when the training loss is not a number, or has exploded.

    Texts have easy and hard parts, and a part in another language is no explosion. So the loss of a block of
    updates is measured in units of what the characters' frequencies alone give for the very same characters,
    and compared with the best block so far and with the loss of the first update.

    `costs` (W,) is that unit, in nats per character, for each window of an epoch.
    """

    def __init__(self, costs: NDArray[np.float64]) -> None:
        self._costs = costs
        self._sum = 0.0
        self._start = self._best = math.inf

    def note(self, step: int, loss: float) -> None:
        """The loss of update number `step`, counted from 0, nats per character."""
        if not math.isfinite(loss):
            raise DivergedError(step, loss)
        if step == 0:
            self._start = loss
        self._sum += loss
        if (step + 1) % BLOCK == 0:
            self._judge(step, BLOCK)
            self._sum = 0.0

    def end(self, step: int) -> None:
        """The run ends after `step` updates: what there is of the last block is judged too."""
        if step % BLOCK >= FEWEST:
            self._judge(step - 1, step % BLOCK)

    def _judge(self, step: int, updates: int) -> None:
        """The mean loss of the last `updates`, which end with number `step`."""
        windows = np.arange(step + 1 - updates, step + 1) % len(self._costs)
        cost = float(self._costs[windows].mean())
        if cost <= 0:  # a text of one character has no cost, and nothing to learn
            return
        mean = self._sum / updates
        # at the start the loss is ln K whatever the characters, so it is divided by the cost of these
        best = min(self._best, self._start / cost)
        worsened = WORSENED if step >= BLOCK else OVERSHOT
        if mean / cost > max(EXPLODED, worsened * best):
            raise DivergedError(step, mean)
        self._best = min(best, mean / cost)

    def progress(self) -> dict[str, float | None]:
        """What an exact resume needs, as JSON values."""
        return {"sum": self._sum, "start": _finite(self._start), "best": _finite(self._best)}

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Without `start`, in checkpoints of earlier versions, a run is judged without it, as it was then."""
        self._sum = progress.get("sum", 0.0)
        self._start, self._best = _known(progress.get("start")), _known(progress.get("best"))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _known(value: float | None) -> float:
    return math.inf if value is None else value


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
        # an untrained network has no training loss yet; its held-out loss is as good a measure
        then = self.lowest if self._smooth is None else self._smooth
        learning = smooth_loss is not None and smooth_loss < then
        waited = step - self.step >= VALIDATIONS * self._every
        self.overfitting = learning and waited and loss > RISEN * self.lowest

    def progress(self) -> dict[str, Any]:
        """What an exact resume needs, as JSON values."""
        return {
            "lowest": _finite(self.lowest),
            "step": self.step,
            "smooth": self._smooth,
            "overfitting": self.overfitting,
        }

    def restore(self, progress: Mapping[str, Any]) -> None:
        self.lowest, self.step = _known(progress.get("lowest")), progress.get("step", 0)
        self._smooth = progress.get("smooth")
        self.overfitting = progress.get("overfitting", False)
