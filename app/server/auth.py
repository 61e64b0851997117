"""Who may ask, what for, and how often. Pure ASGI; keys are compared in constant time and never logged."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import structlog
from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ForbiddenError, RateLimitedError, UnauthorizedError
from app.server.error_formats import respond
from app.server.problems import Problem, problem_of
from model.errors import ConfigError

OPEN = ("/health", "/healthz", "/readyz")
KEY = "charloom.key"  # of an ASGI scope: the key that a request came with


class Right(IntEnum):
    """What a key allows; each right holds those before it."""

    READ = 1
    TRAIN = 2
    ADMIN = 3


@dataclass(frozen=True)
class Key:
    """A client's name, its secret, and what it may do."""

    name: str
    secret: bytes = field(repr=False)
    right: Right


def read_keys(text: str) -> list[Key]:
    """`name:secret` (may read) or `name:secret:right`, separated by commas.

    Raises ConfigError, without showing a secret.
    """
    keys: dict[str, Key] = {}
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        name, _, rest = entry.partition(":")
        secret, _, right = rest.partition(":")
        known = {one.name.lower(): one for one in Right}
        if not (name and secret) or name in keys or right not in ("", *known):
            raise ConfigError(
                "api_keys (CHARLOOM_API_KEYS)",
                f"must hold name:secret or name:secret:right, with a name for each and a right of "
                f"{', '.join(known)}; entry {number} is otherwise",
            )
        keys[name] = Key(name, secret.encode(), known.get(right, Right.READ))
    return list(keys.values())


def read_limits(text: str) -> list[RateLimitItem]:
    """`60/minute; 1000/day` as limits. Raises ConfigError."""
    try:
        return parse_many(text) if text.strip() else []
    except ValueError:
        raise ConfigError(
            "rate_limit (CHARLOOM_RATE_LIMIT)", f"is not like '60/minute; 1000/day'. Given: {text!r}"
        ) from None


class ApiKeys:
    """Lets nobody pass without one of the keys, but for the questions of orchestrators.

    The key comes as `Authorization: Bearer KEY`, or as the password of Basic, which browsers ask for.
    """

    def __init__(self, app: ASGIApp, keys: list[Key]) -> None:
        self.app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = _given(headers.get("authorization", ""))
        key = _find(self._keys, given)
        if key is None:
            problem = problem_of(UnauthorizedError(_reason(given)))
            page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
            challenge = 'Basic realm="Charloom"' if page else "Bearer"
            await respond(problem, scope, {"www-authenticate": challenge})(scope, receive, send)
            return
        scope[KEY] = key
        structlog.contextvars.bind_contextvars(key=key.name)
        await self.app(scope, receive, send)


def key_of(keys: Sequence[Key], authorization: str) -> Key | None:
    """The key that a header gives, if it is one of these."""
    return _find(keys, _given(authorization))


def demand(scope: Mapping[str, Any], right: Right) -> None:
    """Raises ForbiddenError unless the request's key has the right; without keys everybody has all."""
    key = scope.get(KEY)
    if key is not None and key.right < right:
        raise ForbiddenError(
            f"this needs a key with the right {right.name.lower()}; {key.name!r} has {key.right.name.lower()}"
        )


def needs(right: Right) -> Callable[[Request], Awaitable[None]]:
    """A dependency of routes that only keys with `right` may use."""

    async def check(request: Request) -> None:
        demand(request.scope, right)

    return check


class RateLimit:
    """Bounds how many texts a key, or an address where there are none, may ask for in a time."""

    def __init__(self, app: ASGIApp, limits: list[RateLimitItem]) -> None:
        self.app, self.limits = app, limits
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = await self._problem(scope) if _costs(scope) else None
        if problem is None:
            await self.app(scope, receive, send)
        else:
            await respond(problem, scope)(scope, receive, send)

    async def _problem(self, scope: Scope) -> Problem | None:
        key = scope.get(KEY)
        who = f"key {key.name}" if key else f"address {(scope['client'] or ('?',))[0]}"
        for limit in self.limits:
            if not await self._limiter.hit(limit, who):
                stats = await self._limiter.get_window_stats(limit, who)
                seconds = max(0.001, stats.reset_time - time.time())
                return problem_of(
                    RateLimitedError(f"more than {limit}; come back in {seconds:.1f} s", seconds)
                )
        return None


def _costs(scope: Mapping[str, Any]) -> bool:
    return bool(scope["type"] == "http" and (scope["method"] == "POST" or scope["path"] == "/generate"))


def _find(keys: Sequence[Key], given: bytes) -> Key | None:
    """Compares with all keys, so that the time tells nothing about which."""
    found = None
    for key in keys:
        if hmac.compare_digest(given, key.secret):
            found = key
    return found


def _given(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    # a server hands headers over as Latin-1, whatever bytes they hold
    return value.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def _reason(given: bytes) -> str:
    if given:
        return "this API key is not known"
    return "an API key is needed: send it as Authorization: Bearer KEY"
