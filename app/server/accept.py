"""Which of several media types a client wants, by its `Accept` header (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.exceptions import HTTPException

PAGE_OR_DATA = ("text/html", "application/json")


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """The offered type of the highest quality, the earlier one at a tie. Raises HTTPException (406)."""
    if not accept:
        return offered[0]
    ranges = [_media_range(part) for part in accept.split(",")]
    qualities = {offer: _quality(offer, ranges) for offer in offered}
    best = max(offered, key=lambda offer: qualities[offer])
    if qualities[best] <= 0:
        raise HTTPException(406, f"the answer can be {', '.join(offered)}. Accept was: {accept[:200]}")
    return best


def accepts_page(accept: str) -> bool:
    """Whether a client prefers HTML, as a browser does that opens an address; `*/*` is not enough."""
    qualities = [
        _quality(offer, [_media_range(part) for part in accept.split(",")]) for offer in PAGE_OR_DATA
    ]
    return "text/html" in accept.lower() and qualities[0] > max(qualities[1:])


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 0.0
    return name.lower(), quality


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that matches the type; 0 if none does."""
    for name in (offer, offer.split("/")[0] + "/*", "*/*"):
        found = [quality for given, quality in ranges if given == name]
        if found:
            return found[0]
    return 0.0
