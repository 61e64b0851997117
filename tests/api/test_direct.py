"""Valid requests for texts reach their routes directly; invalid ones get the answer of FastAPI."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from app.api.direct import TEXT_PATHS, DirectRoute, DirectRoutes
from app.api.native.text_schemas import GenerateBody
from tests.support.servers import application

JSON = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "the "}]
RIGHT: dict[str, dict[str, Any]] = {
    "/": {"inputs": "the ", "parameters": {"max_new_tokens": 5, "seed": 3}},
    "/generate": {"prompt": "the ", "length": 5, "seed": 3},
    "/generate_stream": {"inputs": "the ", "parameters": {"max_new_tokens": 5, "seed": 3}},
    "/score": {"text": "the cat"},
    "/v1/completions": {"model": "gru", "prompt": "the ", "max_tokens": 5, "seed": 3},
    "/v1/chat/completions": {"model": "gru", "messages": MESSAGES, "max_tokens": 5, "seed": 3},
}
WRONG: dict[str, tuple[bytes, dict[str, str]]] = {
    "no body": (b"", JSON),
    "no JSON": (b'{"length": 5', JSON),
    "no object": (b"[1, 2]", JSON),
    "null": (b"null", JSON),
    "deeply nested": (b"[" * 100_000, JSON),
    "a number of 5,000 digits": (b'{"seed": ' + b"9" * 5000 + b"}", JSON),
    "not UTF-8": (b'{"prompt": "\xff"}', JSON),
    "half a surrogate": (b'{"prompt": "\\ud800"}', JSON),
    "not a number": (b'{"temperature": NaN}', JSON),
    "in quotes": (b'{"length": "5"}', JSON),
    "two faults": (b'{"length": 0, "n": 0}', JSON),
    "unknown field": (b'{"lengths": 5}', JSON),
    "unknown field of TGI": (b'{"inputs": "a", "parameters": {"lengths": 5}}', JSON),
    "unknown character": (b'{"prompt": "\xe2\x82\xac", "inputs": "\xe2\x82\xac"}', JSON),
    "too long": (b'{"length": 1000000}', JSON),
    "no such model": (b'{"model": "herbert", "prompt": "a"}', JSON),
    "no content type": (b'{"length": 5, "seed": 3}', {}),
    "text/plain": (b'{"length": 5, "seed": 3}', {"content-type": "text/plain"}),
    "a kind of JSON": (b'{"length": 5, "seed": 3}', {"content-type": "application/problem+json"}),
    "JSON in capitals": (b'{"length": 5, "seed": 3}', {"content-type": "Application/JSON; charset=utf-8"}),
    "UTF-16": ('{"length": 5, "seed": 3}'.encode("utf-16"), JSON),
    "a byte order mark": (b'\xef\xbb\xbf{"length": 5, "seed": 3}', JSON),
    "twice the same field": (b'{"length": 6, "length": 5, "seed": 3}', JSON),
}


@pytest.fixture(scope="module")
def server(trained_root: Path) -> Iterator[httpx.Client]:
    with application(trained_root) as client:
        yield client


def without_what_differs(answer: httpx.Response) -> tuple[int, dict[str, str], object]:
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    body = answer.content
    if headers.get("content-type") == "application/json" and answer.is_success:
        body = {key: value for key, value in dict(answer.json()).items() if key not in ("id", "created")}
    return answer.status_code, headers, body


def test_valid_body_bypasses_fastapi(server: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    async def handle(self: APIRoute, *arguments: Any) -> NoReturn:
        raise AssertionError(self.path)

    monkeypatch.setattr(APIRoute, "handle", handle)
    assert {path: server.post(path, json=RIGHT[path]).status_code for path in TEXT_PATHS} == dict.fromkeys(
        TEXT_PATHS, 200
    )


@pytest.mark.parametrize("path", ["/generate", "/v1/completions", "/"])
@pytest.mark.parametrize("case", WRONG)
def test_direct_answer_equals_that_of_fastapi(
    server: httpx.Client, monkeypatch: pytest.MonkeyPatch, path: str, case: str
):
    content, headers = WRONG[case]
    direct = server.post(path, content=content, headers=headers)
    monkeypatch.setattr(DirectRoutes, "__call__", lambda self, *arguments: self.app(*arguments))
    expected = server.post(path, content=content, headers=headers)
    assert without_what_differs(direct) == without_what_differs(expected)
    assert direct.status_code != 500


def test_body_sent_in_pieces_is_read_completely(server: httpx.Client):
    pieces = iter([b'{"prompt": "the ", ', b'"length": 5, ', b'"seed": 3}'])
    answer = server.post("/generate", content=pieces, headers=JSON).json()
    assert answer == server.post("/generate", json=RIGHT["/generate"]).json()


def test_route_that_needs_more_than_a_body_is_refused():
    router = APIRouter()

    @router.post("/generate")
    async def generate(request: Request, body: GenerateBody) -> Response:
        return Response()

    route = router.routes[0]
    assert isinstance(route, APIRoute)
    with pytest.raises(TypeError, match="/generate needs more than"):
        DirectRoute.of(route)
