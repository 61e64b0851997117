"""Protection against requests that a browser sends on behalf of other sites' pages.

A page of another site may not change anything (CSRF), and a host name that somebody else controls may not
lead here (DNS rebinding). Other clients send neither `Origin` nor `Sec-Fetch-Site`, and are not affected.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ForbiddenError
from app.server.auth import OPEN
from app.server.error_formats import respond
from app.server.headers import header
from app.server.problems import problem_of

SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing


class Origins:
    """Refuses requests for a host that is not this server, and unsafe ones from pages of other sites.

    Args:
        hosts: names of this server; `*.example.org` allows every subdomain, `*` every name.
        origins: origins of other sites whose pages may change things here (CORS); `*` allows every origin.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self.app, self.hosts, self.origins = app, tuple(host.lower() for host in hosts), origins

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        reason = self._refusal(scope) if scope["type"] == "http" else None
        if reason is None:
            return self.app(scope, receive, send)
        return respond(problem_of(ForbiddenError(reason)), scope)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        host = header(scope["headers"], b"host") or ""
        if scope["path"] not in OPEN and not is_allowed(host, self.hosts):
            return (
                f"this server does not answer for the host {host[:100]!r}: add it to "
                "CHARLOOM_ALLOWED_HOSTS if it is a name of this server"
            )
        origin = header(scope["headers"], b"origin")
        if scope["method"] in SAFE or "*" in self.origins or origin in self.origins:
            return None
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return (
                f"a page of {origin[:100]!r} may not do this: add its origin to CHARLOOM_CORS_ORIGINS "
                "if you trust it"
            )
        if header(scope["headers"], b"sec-fetch-site") == "cross-site":
            return "a page of another site may not do this: add its origin to CHARLOOM_CORS_ORIGINS"
        return None


@lru_cache(256)
def is_allowed(host: str, hosts: tuple[str, ...]) -> bool:
    """Whether `host`, a Host header, names this server.

    Addresses and names without a dot are always allowed: public DNS has neither, so they cannot be rebound.
    """
    name = host.lower()
    name = name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
    name = name.rstrip(".")
    if "." not in name and ":" not in name:
        return True
    if name.endswith(".localhost") or is_address(name):
        return True
    return any(
        allowed in ("*", name) or (allowed.startswith("*.") and name.endswith(allowed[1:]))
        for allowed in hosts
    )


def is_address(name: str) -> bool:
    """Whether `name` is an IP address, with or without brackets."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
