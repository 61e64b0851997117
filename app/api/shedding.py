"""Load shedding: a full server refuses requests before they reach the application.

A refusal by the application costs nearly as much as a text, so at three times its capacity the server would
do little else. The HTTP connection therefore asks here as soon as it has a request's headers.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any

import structlog
from starlette.responses import Response

from app.api.direct import TEXT_PATHS
from app.api.services import Services
from app.engine.engine import Engine
from app.server.auth import Key, key_of, read_keys
from app.server.error_formats import Family, family_of, mark, respond
from app.server.headers import Pairs, completed, header
from app.server.metrics import Metrics
from app.server.middleware import ID_HEADER, SECURITY_HEADERS, id_of, log_request
from app.server.problems import problem_of

TARGETS = frozenset(path.encode() for path in TEXT_PATHS)
LINK = b"/generate"  # may also be requested by GET
TGI_FIELD = re.compile(rb'"inputs"\s*:')
AUTHORIZATION = b"authorization"
SAME_SECONDS = 0.02  # how long an answer is reused


class Shedding:
    """The door of a server (`app.server.protocol.Door`), which is closed while the engine is full.

    The application still answers requests that lack a required key, and cross-origin requests, whose answers
    need CORS headers. The key is not checked here: the refusal is the same for a valid and an invalid one, so
    it does not help to guess keys.
    """

    def __init__(self, engine: Engine, metrics: Metrics, keys: Sequence[Key], access_log: bool) -> None:
        self.engine, self.metrics, self.keys, self.access_log = engine, metrics, keys, access_log
        self._answers: dict[Family, tuple[float, Response]] = {}

    @classmethod
    def of(cls, services: Services) -> Shedding:
        """The door of an application with these services."""
        settings = services.settings
        keys = read_keys(settings.api_keys.get_secret_value())
        return cls(services.engine, services.metrics, keys, settings.access_log)

    def closed(self, method: bytes, target: bytes, headers: Pairs) -> bool:
        if not self.engine.full:
            return False
        path = target.partition(b"?")[0]
        if not (path in TARGETS if method == b"POST" else method == b"GET" and path == LINK):
            return False
        if self.keys and header(headers, AUTHORIZATION) is None:
            return False
        return all(name != b"origin" for name, _ in headers)

    def refusal(self, scope: MutableMapping[str, Any], beginning: bytes) -> tuple[Pairs, bytes]:
        if scope["path"] == "/generate" and TGI_FIELD.search(beginning):
            mark(scope, Family.TGI)
        answer = self._answer(scope)
        request_id = id_of(scope["headers"])
        self.metrics.refused(answer.status_code, "overloaded")
        if self.access_log:
            self._log(scope, answer.status_code, request_id)
        headers = completed(answer.raw_headers, [(ID_HEADER, request_id.encode()), *SECURITY_HEADERS])
        return headers, bytes(answer.body)

    def _answer(self, scope: MutableMapping[str, Any]) -> Response:
        """The refusal, reused for SAME_SECONDS because its advice is in whole seconds anyway."""
        family, now = family_of(scope), self.engine.clock()
        until, answer = self._answers.get(family, (0.0, None))
        if answer is None or now >= until:
            answer = respond(problem_of(self.engine.overload()), scope)
            self._answers[family] = now + SAME_SECONDS, answer
        return answer

    def _log(self, scope: MutableMapping[str, Any], status: int, request_id: str) -> None:
        bound = {"request_id": request_id}
        if key := key_of(self.keys, header(scope["headers"], AUTHORIZATION) or ""):
            bound["key"] = key.name
        with structlog.contextvars.bound_contextvars(**bound):
            log_request(scope, status, 0.0)
