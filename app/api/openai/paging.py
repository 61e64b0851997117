"""Lists a page at a time, as OpenAI's clients ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from app.errors import InvalidRequestError

Item = TypeVar("Item")


def page(
    items: Iterable[Item], after: str | None, limit: int, id_of: Callable[[Item], str]
) -> tuple[list[Item], bool]:
    """At most `limit` of the items that come after the one whose id is `after`, and whether there are more.

    No item is taken that comes later. Raises InvalidRequestError if there is none of that id.
    """
    following = iter(items)
    if after is not None and all(id_of(item) != after for item in following):
        raise InvalidRequestError("after", f"is not in this list. Given: {after[:80]!r}")
    found = list(islice(following, limit + 1))
    return found[:limit], len(found) > limit
