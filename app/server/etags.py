"""Entity tags, so that a client is not sent an answer that it already has (RFC 9110, 8.8.3, 13.1.2)."""

from __future__ import annotations

import hashlib
import re

from fastapi import Request, Response

TAG = re.compile(r'(?:W/)?("[^"]*")')


def etag(*parts: object) -> str:
    """A tag that changes when any of `parts` does."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"))
    return f'"{digest.hexdigest()[:32]}"'


def not_modified(request: Request, tag: str) -> Response | None:
    """A 304 response if the client already has the answer with this tag; otherwise None.

    Also accepts lists of tags, `*`, and weak tags, which compressing proxies create.
    """
    given = ",".join(request.headers.getlist("if-none-match"))
    if given.strip() == "*" or tag in TAG.findall(given):
        return Response(status_code=304, headers={"etag": tag, "cache-control": "no-cache"})
    return None
