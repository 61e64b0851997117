"""Draws pictures in a helper process and caches them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.reports.helper import Helper, Results

CACHED = 64
WAITING = 16
NICE = 5


class Renderer:
    """Calls the drawing functions of `app.reports.plots`. For one event loop.

    Args:
        seconds: maximum time for a picture.
        shared: directory of the pictures that several processes share.
    """

    def __init__(self, seconds: float, shared: Path | None = None) -> None:
        results = Results(shared, CACHED, _picture, bytes) if shared else None
        self.helper = Helper("picture", seconds, nice=NICE, waiting=WAITING, cached=CACHED, shared=results)

    async def picture(self, key: tuple[str, ...], function: str, *arguments: Any) -> bytes:
        """The bytes that `app.reports.plots.<function>(*arguments)` returns, cached by `key`.

        Raises as `Helper.result` does.
        """
        return await self.helper.result(key, _draw, function, arguments)


def _picture(result: Any) -> bytes | None:
    """The encoded form of a result; only pictures are shared, not the counted words."""
    return result if isinstance(result, bytes) else None


def _draw(function: str, arguments: tuple[Any, ...]) -> bytes:
    """Draw in the helper; imported here so that the server process never loads matplotlib."""
    from app.reports import plots

    draw: Callable[..., bytes] = getattr(plots, function)
    return draw(*arguments)
