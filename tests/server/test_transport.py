"""The head of an answer is sent with its body, and never kept for longer than a turn of the event loop."""

import asyncio
from typing import Any

import httpx
import pytest

from app.server.transport import LARGEST_COPY, AnswerTransport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Sent(asyncio.Transport):
    """What is written, a list; closing it closes the list."""

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
        ([HEAD, memoryview(b"body"), b"more"], [HEAD + b"body", b"more"]),
        ([HEAD, b"x" * (LARGEST_COPY + 1)], [HEAD, b"x" * (LARGEST_COPY + 1)]),
        ([b"body"], [b"body"]),
    ],
)
def test_head_is_sent_with_the_body_that_follows(writes: list[bytes], pieces: list[bytes]):
    async def write() -> list[bytes]:
        sent = Sent()
        transport = AnswerTransport(sent, asyncio.get_running_loop())
        for data in writes:
            transport.write(data)
        return sent.pieces

    assert asyncio.run(write()) == pieces


def test_head_without_a_body_is_sent_in_the_next_turn():
    async def write() -> list[list[bytes]]:
        sent = Sent()
        AnswerTransport(sent, asyncio.get_running_loop()).write(HEAD)
        before = list(sent.pieces)
        await asyncio.sleep(0)
        return [before, sent.pieces]

    assert asyncio.run(write()) == [[], [HEAD]]


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


def test_answers_of_the_server_pass_through_it(client: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    written: list[bytes] = []
    write = AnswerTransport.write

    def note(self: AnswerTransport, data: Any) -> None:
        written.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(AnswerTransport, "write", note)
    answer = client.post("/generate", json={"length": 5, "seed": 1})
    assert [data[:5] for data in written] == [b"HTTP/", answer.content[:5]]
