"""The parts of an answer are sent together, and none is held back for longer than a moment."""

import asyncio
from typing import Any

import httpx
import pytest

from app.server.transport import HEAD_SECONDS, LARGEST_COPY, STREAM_HEAD, AnswerTransport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK" + STREAM_HEAD


class Sent(asyncio.Transport):
    """A transport that records what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("writes", "pieces"),
    [
        ([HEAD, b"body"], [HEAD + b"body"]),
        ([HEAD, memoryview(b"body"), b"more"], [HEAD + b"bodymore"]),
        ([HEAD, b"x" * (LARGEST_COPY + 1)], [HEAD, b"x" * (LARGEST_COPY + 1)]),
        ([HEAD, b"x" * LARGEST_COPY, b"y"], [HEAD, b"x" * LARGEST_COPY, b"y"]),
        ([memoryview(b"body")], [b"body"]),
    ],
)
def test_writes_of_one_loop_iteration_are_sent_together(writes: list[bytes], pieces: list[bytes]):
    async def write() -> list[bytes]:
        sent = Sent()
        transport = AnswerTransport(sent, asyncio.get_running_loop())
        for data in writes:
            transport.write(data)
        await asyncio.sleep(0)
        return sent.pieces

    assert asyncio.run(write()) == pieces


def test_head_without_a_body_is_sent_in_the_next_iteration():
    async def write() -> list[list[bytes]]:
        sent = Sent()
        AnswerTransport(sent, asyncio.get_running_loop()).write(HEAD)
        before = list(sent.pieces)
        await asyncio.sleep(0)
        return [before, sent.pieces]

    assert asyncio.run(write()) == [[], [HEAD]]


def test_head_of_a_stream_is_sent_with_the_first_piece():
    async def write() -> list[list[bytes]]:
        sent = Sent()
        transport = AnswerTransport(sent, asyncio.get_running_loop())
        seen = []
        for data in (STREAM, b"first", b"second"):
            transport.write(data)
            for _ in range(3):  # iterations of the loop
                await asyncio.sleep(0)
            seen.append(list(sent.pieces))
        return seen

    assert asyncio.run(write()) == [[], [STREAM + b"first"], [STREAM + b"first", b"second"]]


def test_head_of_a_stream_without_a_piece_is_sent_soon():
    async def write() -> list[bytes]:
        sent = Sent()
        transport = AnswerTransport(sent, asyncio.get_running_loop())
        transport.write(STREAM)
        async with asyncio.timeout(30):
            while not sent.pieces:
                await asyncio.sleep(HEAD_SECONDS / 4)
        transport.write(b"first")
        await asyncio.sleep(0)
        return sent.pieces

    assert asyncio.run(write()) == [STREAM, b"first"]


def test_closing_sends_the_head_first():
    async def write() -> tuple[list[bytes], bool]:
        sent = Sent()
        transport = AnswerTransport(sent, asyncio.get_running_loop())
        transport.write(HEAD)
        transport.close()
        await asyncio.sleep(0)
        return sent.pieces, sent.closed

    assert asyncio.run(write()) == ([HEAD], True)


def test_aborted_connection_gets_no_head():
    async def write() -> list[bytes]:
        sent = Sent()
        transport = AnswerTransport(sent, asyncio.get_running_loop())
        transport.write(HEAD)
        sent.close()
        await asyncio.sleep(0)
        return sent.pieces

    assert asyncio.run(write()) == []


def test_server_writes_answers_through_the_transport(client: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    written: list[bytes] = []
    write = AnswerTransport.write

    def note(self: AnswerTransport, data: Any) -> None:
        written.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(AnswerTransport, "write", note)
    answer = client.post("/generate", json={"length": 5, "seed": 1})
    assert [data[:5] for data in written] == [b"HTTP/", answer.content[:5]]


def test_end_of_a_stream_is_sent_with_its_last_event(client: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    sent: list[bytes] = []
    send = AnswerTransport._send

    def note(self: AnswerTransport) -> None:
        sent.append(b"".join(self._pieces))
        send(self)

    monkeypatch.setattr(AnswerTransport, "_send", note)
    answer = client.post("/generate", json={"length": 5, "seed": 1, "stream": True})
    pieces = [piece for piece in sent if piece]
    assert b"event: done" in answer.content
    assert pieces[-1].endswith(b"0\r\n\r\n")
    assert b"event: done" in pieces[-1]
