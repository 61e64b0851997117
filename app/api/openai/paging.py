"""Lists a page at a time, as OpenAI's clients ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from app.errors import InvalidRequestError

Item = TypeVar("Item")


def page(
    items: Sequence[Item], after: str | None, limit: int, id_of: Callable[[Item], str]
) -> tuple[list[Item], bool]:
    """At most `limit` of the items that come after the one whose id is `after`, and whether there are more.

    Raises InvalidRequestError if there is none of that id.
    """
    begin = 0
    if after is not None:
        begin = 1 + next((at for at, item in enumerate(items) if id_of(item) == after), -1)
        if begin == 0:
            raise InvalidRequestError("after", f"is not in this list. Given: {after[:80]!r}")
    return list(items[begin : begin + limit]), begin + limit < len(items)
