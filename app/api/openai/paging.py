"""Pagination of lists as in OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from app.errors import InvalidRequestError

Item = TypeVar("Item")


def page(
    items: Iterable[Item], after: str | None, limit: int, id_of: Callable[[Item], str]
) -> tuple[list[Item], bool]:
    """At most `limit` of the items after the one with the id `after`, and whether there are more.

    Consumes no further items. Raises InvalidRequestError if no item has that id.
    """
    following = iter(items)
    if after is not None and all(id_of(item) != after for item in following):
        raise InvalidRequestError("after", f"is not in this list. Given: {after[:80]!r}")
    found = list(islice(following, limit + 1))
    return found[:limit], len(found) > limit
