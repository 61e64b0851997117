"""Streams of the native route: the same bytes as a whole answer, limited in number, ended if not read."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Message, Send

from app.server.protocol import GONE
from app.server.streaming import EventStream
from tests.support.runs import wait_until


def events(client: httpx.Client, **request: object) -> list[tuple[str, dict]]:
    """(name, data) of every event."""
    found, name = [], "message"
    with client.stream("POST", "/generate", json=request | {"stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
                name = "message"
    return found


def test_stream_has_the_same_text_and_ends_with_the_whole_answer(client):
    request = {"prompt": "the ", "length": 400, "seed": 4, "n": 3, "stop": ["\n"]}
    whole = client.post("/generate", json=request).json()
    *chunks, last = events(client, **request)
    assert last == ("done", whole)
    for number, choice in enumerate(whole["choices"]):
        own = [data for name, data in chunks if data["choice"] == number]
        assert "".join(data["text"] for data in own) == choice["text"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        assert all(data["finish_reason"] is None for data in own[:-1])
        assert not any("\n" in data["text"] for data in own)


def test_each_of_several_texts_depends_only_on_seed_and_number(client):
    three = client.post("/generate", json={"length": 50, "seed": 4, "n": 3}).json()
    five = client.post("/generate", json={"length": 50, "seed": 4, "n": 5}).json()
    assert three["choices"] == five["choices"][:3]
    assert len({choice["text"] for choice in five["choices"]}) == 5
    assert three["text"] == three["choices"][0]["text"]
    assert "choices" not in client.post("/generate", json={"length": 50, "seed": 4}).json()


def test_bias_forbids_and_forces_characters(client):
    text = client.post("/generate", json={"length": 100, "logit_bias": {"a": -100, " ": -100}}).json()["text"]
    assert not set("a ") & set(text)
    forced = client.post("/generate", json={"length": 20, "logit_bias": {"t": 100}}).json()["text"]
    assert forced == "t" * 20
    error = client.post("/generate", json={"logit_bias": {"€": 1}}).json()["error"]
    assert error["field"] == "logit_bias"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"length": 3_000_000, "stream": True}),
        ("/generate", {"length": 3_000_000}),
        ("/v1/completions", {"max_tokens": 3_000_000, "stream": True}),
        ("/generate_stream", {"inputs": "a", "parameters": {"max_new_tokens": 3_000_000}}),
    ],
)
def test_client_disconnect_ends_the_work(serving, trained_root, path, body):
    client = serving(trained_root, max_length=3_000_000)
    engine = client.app.state.services.engine
    try:
        with client.stream("POST", path, json=body, timeout=1) as answer:
            next(answer.iter_bytes())
    except httpx.ReadTimeout:
        pass
    wait_until(lambda: engine.stats().running == engine.stats().waiting == 0, "the work ends")
    assert engine.stats().characters < 3_000_000
    wait_until(lambda: client.app.state.services.streams.taken == 0, "the place is free")


def test_stream_over_the_limit_is_refused_before_it_starts(serving, trained_root):
    client = serving(trained_root, max_length=3_000_000, max_streams=1)
    body = {"length": 3_000_000, "stream": True}
    with client.stream("POST", "/generate", json=body) as first:
        reading = first.iter_bytes()  # a reference: without it the client disconnects
        next(reading)
        for path, more, shape in (
            ("/generate", body, lambda error: error["code"]),
            ("/v1/completions", {"stream": True}, lambda error: error["code"]),
            ("/generate_stream", {"inputs": ""}, lambda error: "overloaded" if "1 of 1" in error else error),
        ):
            refused = client.post(path, json=more)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert shape(refused.json()["error"]) == "overloaded"
    wait_until(lambda: client.app.state.services.streams.taken == 0, "the place is free")
    assert client.post("/generate", json={"stream": True, "length": 5}).status_code == 200


@pytest.mark.slow
def test_error_in_a_stream_is_an_event_in_the_format_of_the_route(serving, trained_root):
    client = serving(trained_root, deadline_seconds=0.2, max_length=3_000_000)
    name, data = events(client, length=3_000_000)[-1]
    assert (name, data["error"]["code"]) == ("error", "deadline_exceeded")
    assert client.post("/generate", json={"length": 3_000_000, "stream": True}).status_code == 504
    client = serving(trained_root, deadline_seconds=0.2, max_length=3_000_000, max_logprobs=4_000_000)
    body = {"inputs": "a", "parameters": {"max_new_tokens": 3_000_000}}
    with client.stream("POST", "/generate_stream", json=body) as answer:
        last = [line for line in answer.iter_lines() if line.startswith("data: ")][-1]
    assert isinstance(json.loads(last.removeprefix("data: "))["error"], str)


def test_unread_stream_is_aborted_and_releases_its_place(caplog):
    async def events() -> AsyncIterator[bytes]:
        while True:
            yield b"data: {}\n\n"

    async def receive() -> None:
        await asyncio.Event().wait()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()  # the buffers are full and are never read

    closed = []
    stream = EventStream(events(), lambda: closed.append(True), seconds=0.05)
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "POST", "path": "/", "headers": []}

    async def scenario() -> None:
        async with asyncio.timeout(30):
            await stream(scope, receive, send)

    asyncio.run(scenario())
    assert closed == [True]
    assert "did not read it within 0.05 s" in caplog.text


async def _stream_of(pieces: AsyncIterator[bytes], closed: list[bool], gone: "asyncio.Future[None]") -> None:
    async def send(message: Message) -> None:
        await asyncio.sleep(0)

    async def receive() -> Message:
        raise AssertionError("the stream must not receive")

    stream = EventStream(pieces, lambda: closed.append(True), seconds=30)
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], GONE: gone}
    await stream(scope, receive, send)


def test_stream_of_a_disconnected_client_ends_without_an_error():
    async def scenario() -> tuple[list[bool], int]:
        gone, closed = asyncio.get_running_loop().create_future(), []

        async def pieces() -> AsyncIterator[bytes]:
            yield b"data: {}\n\n"
            gone.set_result(None)
            await asyncio.Event().wait()

        async with asyncio.timeout(30):
            await _stream_of(pieces(), closed, gone)
        task = asyncio.current_task()
        await asyncio.sleep(0)  # the task itself is not cancelled
        return closed, task.cancelling() if task else -1

    assert asyncio.run(scenario()) == ([True], 0)


def test_disconnect_after_the_last_piece_cancels_nothing():
    async def scenario() -> list[bool]:
        gone, closed = asyncio.get_running_loop().create_future(), []

        async def pieces() -> AsyncIterator[bytes]:
            yield b"data: {}\n\n"

        class Late(EventStream):
            async def stream_response(self, send: Send) -> None:
                await super().stream_response(send)
                gone.set_result(None)  # the callbacks run after the stream has ended

        stream = Late(pieces(), lambda: closed.append(True), seconds=30)
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], GONE: gone}

        async def send(message: Message) -> None: ...

        await stream(scope, asyncio.Event().wait, send)
        await asyncio.sleep(0)
        return closed

    assert asyncio.run(scenario()) == [True]


def test_cancelled_task_of_a_stream_stays_cancelled():
    async def scenario() -> list[bool]:
        gone, closed = asyncio.get_running_loop().create_future(), []

        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b"data: {}\n\n"

        task = asyncio.ensure_future(_stream_of(pieces(), closed, gone))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return closed

    assert asyncio.run(scenario()) == [True]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_client_disconnect_after_a_long_body_ends_the_work(serving, trained_root, stream):
    client = serving(trained_root, max_length=3_000_000)
    engine = client.app.state.services.engine
    body = json.dumps({"length": 3_000_000, "stream": stream}).encode() + b" " * 70_000
    head = "POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        time.sleep(0.1)  # the server is waiting for the body by then
        connection.sendall(body)
        wait_until(lambda: engine.stats().running == 1, "the work starts")
    wait_until(lambda: engine.stats().running == 0, "the work ends")
    assert engine.stats().characters < 3_000_000
