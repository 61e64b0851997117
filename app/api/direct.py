"""A fast path for text requests: a valid body goes directly to the function of its route.

FastAPI matches a path twice, opens three exit stacks for dependencies and resolves each of them. For these
routes that has no effect, but takes the event loop as long as everything else together. Requests that are not
exactly as expected still go through FastAPI, so that one place reports what is wrong with them.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.services import Services, ServicesDep
from app.server.headers import header

TEXT_PATHS = ("/", "/generate", "/generate_stream", "/score", "/v1/completions", "/v1/chat/completions")
JSON_TYPES = ("application/json", "application/json; charset=utf-8")  # content types read here
TELEMETRY = "fastapi.telemetry"  # in the scope of requests that FastAPI traces

Endpoint = Callable[[Request, Services, Any], Awaitable[Response]]
ErrorHandlers = Mapping[Any, Callable[[Request, Any], Any]]


@dataclass(frozen=True)
class DirectRoute:
    """The function of a route, which takes the request, the services and a body, and the type of the body."""

    endpoint: Endpoint
    body: TypeAdapter[Any]

    @classmethod
    def of(cls, route: APIRoute) -> DirectRoute:
        """Raises TypeError if the route's function takes other parameters."""
        types = list(get_type_hints(route.endpoint, include_extras=True).values())
        if types[:2] != [Request, ServicesDep] or types[3:] != [Response] or route.dependencies:
            raise TypeError(f"{route.path} needs more than the request, the services and a body")
        return cls(route.endpoint, TypeAdapter(types[2]))

    def read(self, scope: Scope, messages: Iterable[Message]) -> Any:
        """The validated body, or None if FastAPI must handle the request."""
        kind = header(scope["headers"], b"content-type")
        if kind is None or kind.lower() not in JSON_TYPES:
            return None
        try:
            body = json.loads(b"".join(message.get("body", b"") for message in messages))
            return self.body.validate_python(body)
        except (ValueError, RecursionError, ValidationError):
            return None


class DirectRoutes:
    """Answers text requests whose bodies are valid and passes on all others.

    Args:
        routes: routes of the application; those in TEXT_PATHS are called directly.
        handlers: FastAPI's exception handlers, by exception type.
    """

    def __init__(
        self, app: ASGIApp, services: Services, routes: Iterable[BaseRoute], handlers: ErrorHandlers
    ) -> None:
        self.app, self.services, self.handlers = app, services, handlers
        self._routes = {
            route.path: DirectRoute.of(route)
            for route in routes
            if isinstance(route, APIRoute) and route.path in TEXT_PATHS and route.methods == {"POST"}
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "POST" and TELEMETRY not in scope:
            route = self._routes.get(scope["path"])
            if route is not None:
                return self._answer(route, scope, receive, send)
        return self.app(scope, receive, send)

    async def _answer(self, route: DirectRoute, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            messages = [await receive()]
            while messages[-1].get("more_body"):
                messages.append(await receive())
            body = route.read(scope, messages)
            response = None if body is None else await route.endpoint(request, self.services, body)
        except Exception as error:
            response = await self._refusal(request, error)
        if response is None:
            await self.app(scope, _again(messages, receive), send)
        else:
            await response(scope, receive, send)

    async def _refusal(self, request: Request, error: Exception) -> Response:
        """The response to an error. Raises the error if it has no handler."""
        for kind in type(error).__mro__:
            if kind in self.handlers:
                response: Response = await self.handlers[kind](request, error)
                return response
        raise error


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Wrap `receive` to replay the messages that were already read."""

    async def received() -> Message:
        return messages.pop(0) if messages else await receive()

    return received
