"""Who may ask, what for, and how often. Pure ASGI; keys are compared in constant time and never logged."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import structlog
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ForbiddenError, RateLimitedError, UnauthorizedError
from app.server.error_formats import respond
from app.server.problems import problem_of
from app.server.shared import SharedCounts
from model.errors import ConfigError

OPEN = ("/health", "/healthz", "/readyz")
ASSETS = "/assets/"  # open too: the page that asks for a key is made of them, and they hold no data
KEY = "charloom.key"  # of an ASGI scope: the key that a request came with
WRONG_KEY_SECONDS = 0.5  # that the answer to a wrong key takes
MOST_GUESSES = 16  # wrong keys of one address whose answers may be waiting at the same time
TEXTS = "texts"
# what costs as much as a text, or more, though it is asked for by GET
COSTLY = re.compile(r"/generate|/gradcheck(\.svg|\.png)?|/report|/runs/[^/]+/export")


class Right(IntEnum):
    """What a key allows; each right holds those before it."""

    READ = 1
    TRAIN = 2
    ADMIN = 3


@dataclass(frozen=True)
class Key:
    """A client's name, its secret, and what it may do; `texts`: also read whole texts."""

    name: str
    secret: bytes = field(repr=False)
    right: Right
    texts: bool = False


def read_keys(text: str) -> list[Key]:
    """`name:secret` (may read) or `name:secret:right`, separated by commas; `train+texts` is two rights.

    Raises ConfigError, without showing a secret.
    """
    keys: dict[str, Key] = {}
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        name, _, rest = entry.partition(":")
        secret, _, given = rest.partition(":")
        rights = _rights(given)
        if not (name and secret) or name in keys or rights is None:
            raise ConfigError(
                "api_keys (CHARLOOM_API_KEYS)",
                "must hold name:secret or name:secret:right, each with its own name and a right of "
                "{', '.join(one.name.lower() for one in Right)}, which {TEXTS} may be added to with '+'; "
                f"check entry {number}",
            )
        keys[name] = Key(name, secret.encode(), *rights)
    if text.strip() and not keys:
        raise ConfigError(
            "api_keys (CHARLOOM_API_KEYS)", "contains no key: leave it unset to serve every client"
        )
    return list(keys.values())


def _rights(given: str) -> tuple[Right, bool] | None:
    """`train+texts` as right and whether whole texts may be read; None if it cannot be read."""
    parts = given.lower().split("+") if given else []
    ranks = [Right[part.upper()] for part in parts if part.upper() in Right.__members__]
    if len(ranks) > 1 or len(ranks) + (TEXTS in parts) != len(parts):
        return None
    right = ranks[0] if ranks else Right.READ
    return right, TEXTS in parts or right is Right.ADMIN


def read_limits(text: str) -> list[RateLimitItem]:
    """`60/minute; 1000/day` as limits. Raises ConfigError."""
    try:
        return parse_many(text) if text.strip() else []
    except ValueError:
        raise ConfigError(
            "rate_limit (CHARLOOM_RATE_LIMIT)", f"is not like '60/minute; 1000/day'. Given: {text!r}"
        ) from None


class ApiKeys:
    """Lets nobody pass without one of the keys, but for the questions of orchestrators and for assets.

    The key comes as `Authorization: Bearer KEY`, or as the password of Basic, which browsers ask for.
    """

    def __init__(self, app: ASGIApp, keys: list[Key]) -> None:
        self.app, self._keys = app, keys
        self._guesses: Counter[str] = Counter()  # wrong keys whose answers wait, by address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or scope["path"].startswith(ASSETS):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given, address = _given(headers.get("authorization", "")), _address(scope)
        if given and self._guesses[address] >= MOST_GUESSES:  # before the key is compared with any
            guessing = RateLimitedError(
                f"{MOST_GUESSES} requests with wrong API keys from this address are waiting for their "
                f"answers; try again in "
                f"{WRONG_KEY_SECONDS:g} s",
                WRONG_KEY_SECONDS,
            )
            await respond(problem_of(guessing), scope)(scope, receive, send)
            return
        key = _find(self._keys, given)
        if key is None:
            problem = problem_of(UnauthorizedError(_reason(given)))
            if given:
                await self._delay(address)
            page = scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", "")
            challenge = 'Basic realm="Charloom"' if page else "Bearer"
            await respond(problem, scope, {"www-authenticate": challenge})(scope, receive, send)
            return
        scope[KEY] = key
        structlog.contextvars.bind_contextvars(key=key.name)

        async def send_privately(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                if answered.get("content-type", "").startswith("application/json"):
                    answered["cache-control"] = "no-store"  # a browser's disk is not where it belongs
            await send(message)

        await self.app(scope, receive, send_privately)

    async def _delay(self, address: str) -> None:
        """The wait before a wrong key is answered, which counts as one of its address until then."""
        self._guesses[address] += 1
        try:
            await asyncio.sleep(WRONG_KEY_SECONDS)
        finally:
            self._guesses[address] -= 1
            if not self._guesses[address]:
                del self._guesses[address]


def key_of(keys: Sequence[Key], authorization: str) -> Key | None:
    """The key that a header gives, if it is one of these."""
    return _find(keys, _given(authorization))


def client_of(scope: Mapping[str, Any]) -> str:
    """Whom a request is counted for: its key, or its address where there are no keys."""
    key = scope.get(KEY)
    return f"key {key.name}" if key else f"address {_address(scope)}"


def _address(scope: Mapping[str, Any]) -> str:
    return str((scope["client"] or ("?",))[0])


def demand(scope: Mapping[str, Any], right: Right) -> None:
    """Raises ForbiddenError unless the request's key has the right; without keys everybody has all."""
    key = scope.get(KEY)
    if key is not None and key.right < right:
        raise ForbiddenError(
            f"this needs a key with the right {right.name.lower()}; {key.name!r} has {key.right.name.lower()}"
        )


def demand_texts(scope: Mapping[str, Any]) -> None:
    """Raises ForbiddenError unless the request's key may read whole texts."""
    key = scope.get(KEY)
    if key is not None and not key.texts:
        raise ForbiddenError(
            f"whole texts need a key with the right {TEXTS}; {key.name!r} has {key.right.name.lower()} only"
        )


def needs(right: Right) -> Callable[[Request], Awaitable[None]]:
    """A dependency of routes that only keys with `right` may use."""

    async def check(request: Request) -> None:
        demand(request.scope, right)

    return check


_charge: ContextVar[Callable[[int], None] | None] = ContextVar("charge", default=None)


def charge(texts: int) -> None:
    """Counts further texts of the request in progress. Raises RateLimitedError."""
    more = _charge.get()
    if more is not None and texts > 0:
        more(texts)


class RateLimit:
    """Bounds how many texts a key, or an address where there are no keys, may ask for in a time.

    A request counts as one at the door; the routes `charge` what it asks for beyond that.
    """

    def __init__(self, app: ASGIApp, limits: list[RateLimitItem], shared: Path | None = None) -> None:
        """`shared` is the file in which several processes count together."""
        self.app, self.limits = app, limits
        self._limiter = SlidingWindowCounterRateLimiter(SharedCounts(shared) if shared else MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _costs(scope):
            await self.app(scope, receive, send)
            return
        client = client_of(scope)
        try:
            self._count(client, 1)
        except RateLimitedError as error:
            await respond(problem_of(error), scope)(scope, receive, send)
            return
        token = _charge.set(lambda texts: self._count(client, texts))
        try:
            await self.app(scope, receive, send)
        finally:
            _charge.reset(token)

    def _count(self, client: str, texts: int) -> None:
        for limit in self.limits:
            if not self._limiter.hit(limit, client, cost=texts):
                stats = self._limiter.get_window_stats(limit, client)
                seconds = max(0.001, stats.reset_time - time.time())
                more = f" ({texts} more were requested)" if texts > 1 else ""
                raise RateLimitedError(
                    f"the limit of texts is {limit}{more}; try again in {seconds:.1f} s", seconds
                )


def _costs(scope: Mapping[str, Any]) -> bool:
    return bool(
        scope["type"] == "http" and (scope["method"] == "POST" or COSTLY.fullmatch(scope["path"]) is not None)
    )


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
        return "this API key is unknown"
    return "an API key is needed: send it as Authorization: Bearer KEY"
