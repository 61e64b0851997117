"""Entity tags identify answers, so that a client need not be sent what it has (RFC 9110, 8.8.3, 13.1.2)."""

from __future__ import annotations

import hashlib
import re

from fastapi import Request, Response

TAG = re.compile(r'(?:W/)?("[^"]*")')


def etag(*parts: object) -> str:
    """A tag that differs where any of `parts` does."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"))
    return f'"{digest.hexdigest()[:32]}"'


def not_modified(request: Request, tag: str) -> Response | None:
    """The 304 for a client that has the answer of that tag; None for others.

    A list of tags, weak ones (a proxy that compresses makes them so) and `*` match too.
    """
    given = ",".join(request.headers.getlist("if-none-match"))
    if given.strip() == "*" or tag in TAG.findall(given):
        return Response(status_code=304, headers={"etag": tag, "cache-control": "no-cache"})
    return None
