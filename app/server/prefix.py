"""A server below a path of a proxy, such as https://example.org/charloom/."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import ConfigError


def check_prefix(prefix: str, paths: Iterable[str]) -> None:
    """Raises ConfigError if one of `paths`, which are the server's own, is the prefix or below it.

    Whether the proxy has taken the prefix off could then not be seen from a request.
    """
    for path in paths:
        if path == prefix or path.startswith(f"{prefix}/"):
            raise ConfigError(
                "root_path (CHARLOOM_ROOT_PATH)",
                f"must not be the beginning of a path of the server, which has {path}. Given: {prefix!r}",
            )


class Prefix:
    """Strips the prefix from the paths of requests, unless the proxy has, and adds it to `Location` headers.

    Args:
        prefix: such as `/charloom`, without a trailing slash.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == self.prefix or scope["path"].startswith(f"{self.prefix}/"):
            scope["path"] = scope["path"].removeprefix(self.prefix) or "/"
            raw = scope.get("raw_path")
            if raw:
                scope["raw_path"] = raw.removeprefix(self.prefix.encode()) or b"/"
        host = Headers(scope=scope).get("host", "")

        async def send_prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                location = headers.get("location", "")
                path = location.partition(f"://{host}")[2] if "://" in location else location
                if path.startswith("/"):
                    headers["location"] = self.prefix + path
            await send(message)

        await self.app(scope, receive, send_prefixed)
