"""The smooth loss: an exponential moving average of the training loss, with bias correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SmoothLoss:
    """An exponential moving average with decay `share`. After n losses l_1 to l_n, in nats per character:

        assignment = share^(n-1) l_1 + (1 - share) sum over k > 1 of share^(n-k) l_k
        value      = (1 - share) sum over all k of share^(n-k) l_k / (1 - share^n)

    `assignment` is the assignment's formula. It is initialised with l_1, which therefore has too much weight:
    in a run of a few hundred updates it mostly shows the untrained network's loss. `value` is free of that
    bias (the correction of Kingma and Ba, 2015, section 3).

    Attributes:
        assignment, value: None before the first loss.
    """

    def __init__(self, share: float) -> None:
        self._share, self._count = share, 0
        self._first: float | None = None
        self.assignment: float | None = None
        self.value: float | None = None

    def note(self, loss: float) -> float:
        """Adds the loss of one update and returns the new `value`."""
        if self.assignment is None:
            self._first = self.assignment = loss
        else:
            self.assignment = self._share * self.assignment + (1 - self._share) * loss
        self._count += 1
        self.value = self._corrected(self.assignment)
        return self.value

    def _corrected(self, assignment: float) -> float:
        if self._first is None:
            return assignment
        weight = self._share**self._count  # excess weight of l_1
        return (assignment - weight * self._first) / (1 - weight)

    def progress(self) -> dict[str, float | None]:
        """The state that an exact resume needs, as JSON values."""
        return {"smooth_loss": self.value, "assignment_loss": self.assignment, "first_loss": self._first}

    def restore(self, progress: Mapping[str, Any], count: int) -> None:
        """Restores what `progress` returned after `count` losses.

        Checkpoints of earlier versions lack `first_loss`; their runs continue without the correction.
        """
        self.value = progress["smooth_loss"]
        self.assignment = progress.get("assignment_loss", self.value)
        self._first, self._count = progress.get("first_loss"), count
