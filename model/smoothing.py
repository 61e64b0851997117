"""The smooth loss: a running mean of the training loss, without the bias of where it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SmoothLoss:
    """A running mean that keeps `share` of the old value: after n losses l_1 to l_n, nats per character,

        assignment = share^(n-1) l_1 + (1 - share) sum over k > 1 of share^(n-k) l_k
        value      = (1 - share) sum over all k of share^(n-k) l_k / (1 - share^n)

    The first is the assignment's own: it begins with l_1, which so weighs as much as all that came before it
    would. In a run of a few hundred updates it still says what the untrained network's loss was. The second
    weighs every loss by its age alone (the correction of Kingma and Ba, 2015, section 3).

    Attributes:
        assignment, value: None before the first loss.
    """

    def __init__(self, share: float) -> None:
        self._share, self._count = share, 0
        self._first: float | None = None
        self.assignment: float | None = None
        self.value: float | None = None

    def note(self, loss: float) -> float:
        """The loss of one more update; `value` after it."""
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
        weight = self._share**self._count  # that l_1 has too much of
        return (assignment - weight * self._first) / (1 - weight)

    def progress(self) -> dict[str, float | None]:
        """What an exact resume needs, as JSON values."""
        return {"smooth_loss": self.value, "assignment_loss": self.assignment, "first_loss": self._first}

    def restore(self, progress: Mapping[str, Any], count: int) -> None:
        """`count` losses were noted. Without the first one, as in earlier versions, nothing is corrected."""
        self.value = progress["smooth_loss"]
        self.assignment = progress.get("assignment_loss", self.value)
        self._first, self._count = progress.get("first_loss"), count
