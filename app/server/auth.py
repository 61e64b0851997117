"""API keys, their rights, and rate limits. Pure ASGI; keys are compared in constant time and never logged."""

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
ASSETS = "/assets/"  # open too: the error page needs them, and they hold no data
KEY = "charloom.key"  # the request's key in the ASGI scope
WRONG_KEY_SECONDS = 0.5  # delay of the answer to a wrong key
MOST_GUESSES = 16  # delayed answers to wrong keys per address
TEXTS = "texts"
# GET requests that cost as much as a text, or more
COSTLY = re.compile(r"/generate|/gradcheck(\.svg|\.png)?|/report|/runs/[^/]+/export")


class Right(IntEnum):
    """What a key allows; each right includes those before it."""

    READ = 1
    TRAIN = 2
    ADMIN = 3


@dataclass(frozen=True)
class Key:
    """A client's name, secret and right; `texts` also allows reading whole texts."""

    name: str
    secret: bytes = field(repr=False)
    right: Right
    texts: bool = False


def read_keys(text: str) -> list[Key]:
    """Parse `name:secret` (may read) or `name:secret:right`, comma-separated; a right may be `train+texts`.

    Raises ConfigError, whose message contains no secret.
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
                f"{', '.join(one.name.lower() for one in Right)}, to which +{TEXTS} may be added; "
                f"check entry {number}",
            )
        keys[name] = Key(name, secret.encode(), *rights)
    if text.strip() and not keys:
        raise ConfigError(
            "api_keys (CHARLOOM_API_KEYS)", "contains no key: leave it unset to serve every client"
        )
    return list(keys.values())


def _rights(given: str) -> tuple[Right, bool] | None:
    """Parse `train+texts` into the right and whether whole texts may be read; None if invalid."""
    parts = given.lower().split("+") if given else []
    ranks = [Right[part.upper()] for part in parts if part.upper() in Right.__members__]
    if len(ranks) > 1 or len(ranks) + (TEXTS in parts) != len(parts):
        return None
    right = ranks[0] if ranks else Right.READ
    return right, TEXTS in parts or right is Right.ADMIN


def read_limits(text: str) -> list[RateLimitItem]:
    """Parse limits such as `60/minute; 1000/day`. Raises ConfigError."""
    try:
        return parse_many(text) if text.strip() else []
    except ValueError:
        raise ConfigError(
            "rate_limit (CHARLOOM_RATE_LIMIT)", f"is not like '60/minute; 1000/day'. Given: {text!r}"
        ) from None


class ApiKeys:
    """Requires one of the keys for every request except health checks and assets.

    Clients send the key as `Authorization: Bearer KEY` or, as browsers do, as the password of Basic.
    """

    def __init__(self, app: ASGIApp, keys: list[Key]) -> None:
        self.app, self._keys = app, keys
        self._guesses: Counter[str] = Counter()  # delayed answers to wrong keys, by address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or scope["path"].startswith(ASSETS):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given, address = _given(headers.get("authorization", "")), _address(scope)
        if given and self._guesses[address] >= MOST_GUESSES:  # before any comparison
            guessing = RateLimitedError(
                f"{MOST_GUESSES} requests with wrong API keys from this address are waiting for their "
                f"answers; try again in {WRONG_KEY_SECONDS:g} s",
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
                    answered["cache-control"] = "no-store"  # keep it out of the browser's disk cache
            await send(message)

        await self.app(scope, receive, send_privately)

    async def _delay(self, address: str) -> None:
        """Delay the answer to a wrong key; until then it counts against the address."""
        self._guesses[address] += 1
        try:
            await asyncio.sleep(WRONG_KEY_SECONDS)
        finally:
            self._guesses[address] -= 1
            if not self._guesses[address]:
                del self._guesses[address]


def key_of(keys: Sequence[Key], authorization: str) -> Key | None:
    """The key in an Authorization header, if it is one of `keys`."""
    return _find(keys, _given(authorization))


def client_of(scope: Mapping[str, Any]) -> str:
    """The client that a request counts for: its key, or its address if the server has no keys."""
    key = scope.get(KEY)
    return f"key {key.name}" if key else f"address {_address(scope)}"


def _address(scope: Mapping[str, Any]) -> str:
    return str((scope["client"] or ("?",))[0])


def demand(scope: Mapping[str, Any], right: Right) -> None:
    """Raises ForbiddenError unless the request's key has the right; without keys, every client has it."""
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
    """A dependency for routes that require `right`."""

    async def check(request: Request) -> None:
        demand(request.scope, right)

    return check


_charge: ContextVar[Callable[[int], None] | None] = ContextVar("charge", default=None)


def charge(texts: int) -> None:
    """Count further texts of the current request. Raises RateLimitedError."""
    more = _charge.get()
    if more is not None and texts > 0:
        more(texts)


class RateLimit:
    """Limits how many texts a key, or an address if there are no keys, may request in a period.

    Every request counts as one text; the routes `charge` any further ones.
    """

    def __init__(self, app: ASGIApp, limits: list[RateLimitItem], shared: Path | None = None) -> None:
        """`shared` is the file of the counts that several processes share."""
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
    """Compare with every key, so that the time does not reveal which one matched."""
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
    # ASGI servers decode header bytes as Latin-1
    return value.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def _reason(given: bytes) -> str:
    if given:
        return "this API key is unknown"
    return "an API key is needed: send it as Authorization: Bearer KEY"
