"""A bound on how many of something there are at once, such as open streams."""

from __future__ import annotations

from app.errors import OverloadedError


class Slots:
    """At most `limit` at once; `what` names them for people: `streams are open`."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self.what = limit, what
        self.taken = 0

    def take(self, seconds: float) -> None:
        """Raises OverloadedError; `seconds` is the advice when to come back."""
        if self.taken >= self.limit:
            raise OverloadedError(f"{self.taken} of {self.limit} {self.what}; come back later", seconds)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1


class StreamSlots(Slots):
    """Bounds how many streams are open, also those whose text is written but not yet read.

    `closing` tells those that follow a run, and would never end, that the server stops.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit, "streams are open")
        self.closing = False
