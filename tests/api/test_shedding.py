"""A full server refuses texts at the connection, exactly as the application would."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
import uvloop

from app.engine.engine import Engine
from app.engine.job import Job
from app.errors import OverloadedError
from app.server.process import handles, listen
from app.server.protocol import LONGEST_REFUSED
from tests.support.runs import LONGEST_WAIT
from tests.support.servers import application

NATIVE, OPENAI, TGI = {"length": 5}, {"model": "classic", "prompt": "a"}, {"inputs": "a"}
ASKED = [
    ("/generate", NATIVE),
    ("/generate", TGI),
    ("/generate", {"stop": '"inputs":'}),
    ("/", TGI),
    ("/generate_stream", TGI),
    ("/score", {"text": "a cat"}),
    ("/v1/completions", OPENAI),
    ("/v1/chat/completions", {"model": "classic", "messages": [{"role": "user", "content": "a"}]}),
]


@pytest.fixture(scope="module")
def server(trained_root: Path) -> Iterator[httpx.Client]:
    with application(trained_root) as client:
        yield client


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that reached the engine, which refuses all of them."""
    asked = []

    def submit(self: Engine, job: Job) -> NoReturn:
        asked.append(job)
        raise self.overload(len(job.unfinished))

    monkeypatch.setattr(Engine, "submit", submit)
    return asked


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "full", True)


def without_what_differs(answer: httpx.Response) -> tuple[int, dict[str, str], object]:
    """The answer without its id, its date and the order of its headers."""
    fixed = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    return answer.status_code, fixed, answer.json()


@pytest.mark.parametrize(("path", "body"), ASKED)
def test_early_refusal_equals_the_refusal_of_the_application(server, monkeypatch, reached, path, body):
    given = server.post(path, json=body)
    assert len(reached) == 1
    monkeypatch.setattr(Engine, "full", True)
    shed = server.post(path, json=body)
    assert len(reached) == 1, "the request reached the application"
    assert without_what_differs(shed) == without_what_differs(given)
    assert shed.status_code == 429
    assert len(shed.headers["x-request-id"]) == 32


def test_get_request_is_refused_early_with_its_request_id(server, reached, full):
    answer = server.get("/generate", params={"prompt": "a"}, headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (429, "mine")
    assert not reached


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/runs", "/loss-curve", "/"])
def test_request_that_needs_no_place_is_answered_when_full(server, full, path):
    assert server.get(path).status_code == 200


def test_refusals_are_counted_and_logged_with_the_key_name(trained_root, full, caplog):
    caplog.set_level("DEBUG")
    with application(trained_root, access_log=True, api_keys="ann:s3cret") as client:
        ann = {"authorization": "Bearer s3cret"}
        assert client.post("/generate", json=NATIVE, headers=ann).status_code == 429
        metrics = client.get("/metrics", headers=ann).text
    assert 'charloom_requests_rejected_total{reason="overloaded"} 1.0' in metrics
    record = next(one for one in caplog.records if one.getMessage() == "request")
    assert (record.path, record.status) == ("/generate", 429)
    assert "s3cret" not in caplog.text


@pytest.mark.slow
def test_overload_is_not_revealed_without_a_key(trained_root, full):
    with application(trained_root, api_keys="ann:s3cret") as client:
        for path, body in ASKED:
            assert client.post(path, json=body).status_code == 401


def test_refusal_does_not_reveal_whether_a_key_is_correct(trained_root, full):
    """Otherwise a full server would answer guesses without the limit on wrong keys."""
    with application(trained_root, api_keys="ann:s3cret") as client:
        given = ("s3cret", "wrong")
        right, wrong = (
            client.post("/generate", json=NATIVE, headers={"authorization": f"Bearer {key}"}) for key in given
        )
    assert right.status_code == 429
    assert without_what_differs(right) == without_what_differs(wrong)


def test_refusal_can_be_read_by_an_allowed_origin(trained_root, full, reached):
    with application(trained_root, cors_origins="https://pages.example") as client:
        answer = client.post("/generate", json=NATIVE, headers={"origin": "https://pages.example"})
    assert answer.status_code == 429
    assert answer.headers["access-control-allow-origin"] == "https://pages.example"


def test_connection_is_kept_across_refusals_and_answers(server, monkeypatch):
    address = (server.base_url.host, server.base_url.port)
    body = b'{"length": 5}'
    ask = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"
    with socket.create_connection(address, timeout=LONGEST_WAIT) as connection:
        reader = connection.makefile("rb")

        def status(more: bytes = b"") -> int:
            connection.sendall(ask + more + b"\r\n" + body)
            first = int(reader.readline().split()[1])
            length = 0
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.lower().partition(b":")
                length = int(value) if name == b"content-length" else length
            reader.read(length)
            return first

        for is_full in (True, True, False, True, False):
            monkeypatch.setattr(Engine, "full", is_full)
            assert status() == (429 if is_full else 200)
        monkeypatch.setattr(Engine, "full", True)
        assert status(b"Connection: close\r\n") == 429
        assert reader.read() == b""


def test_pipelined_requests_are_answered_in_order(server, monkeypatch):
    """The second request arrives while the first text is being written; the server is full by then."""
    looks = iter((False,))
    monkeypatch.setattr(Engine, "full", property(lambda self: next(looks, True)))
    ask = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    bodies = b'{"length": 9000, "seed": 1}', b'{"length": 7, "seed": 1}'
    with socket.create_connection((server.base_url.host, server.base_url.port), LONGEST_WAIT) as connection:
        connection.sendall(b"".join(ask + b"Content-Length: %d\r\n\r\n%b" % (len(b), b) for b in bodies))
        data = b""
        while b'"length":7' not in data and (piece := connection.recv(1 << 16)):
            data += piece
    assert 0 < data.find(b'"length":9000') < data.find(b'"length":7')


@pytest.mark.parametrize("kind", ["announced", "chunked"])
def test_body_of_a_refused_request_is_read_up_to_a_limit(server, full, kind):
    address = (server.base_url.host, server.base_url.port)
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(address, timeout=LONGEST_WAIT) as connection:
        if kind == "announced":
            connection.sendall(head + b"Content-Length: 100000000\r\n\r\n")
        else:
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = bytes(1 << 16)
        for _ in range(20 * LONGEST_REFUSED // len(piece)):
            try:
                connection.sendall(piece if kind == "announced" else b"10000\r\n" + piece + b"\r\n")
            except OSError:
                return
        raise AssertionError("the whole body was read")


def test_many_connections_are_accepted_in_one_loop_iteration():
    """libuv accepts one connection per socket and iteration, which is too few if iterations take long."""

    async def turns_until_all_are_accepted(count: int) -> int:
        loop, made, turns = asyncio.get_running_loop(), [], 0

        class Taken(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(transport)

        servers = [await loop.create_server(Taken, sock=one) for one in handles(listener)]
        clients = [socket.create_connection(listener.getsockname()) for _ in range(count)]
        while len(made) < count:
            await asyncio.sleep(0)
            turns += 1
        for one in (*clients, *made, *servers):
            one.close()
        return turns

    [listener] = listen("127.0.0.1", 0)
    with listener:
        assert uvloop.run(turns_until_all_are_accepted(100)) < 20


def test_retry_time_is_one_second_before_any_measurement():
    engine = Engine(max_rows=1, max_queue=0)
    assert not engine.full
    error = engine.overload()
    assert isinstance(error, OverloadedError)
    assert error.retry_after == 1.0, "no rate is known yet"
