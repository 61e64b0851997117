"""A transport that combines small writes, to save system calls."""

from __future__ import annotations

import asyncio
from typing import Any

LARGEST_COPY = 1 << 16  # bytes that are combined into one write
HEAD_SECONDS = 0.05  # maximum delay of a stream's head
STREAM_HEAD = b"\r\ntransfer-encoding: chunked\r\n\r\n"  # how uvicorn ends the head of a stream


class AnswerTransport(asyncio.Transport):
    """Combines what is written in one iteration of the event loop.

    uvicorn writes head, body and end of an answer separately, and uvloop sends each with its own system call
    and packet, which wakes the client as often. One call costs the event loop a tenth of a short text's time.
    The head of a stream waits up to HEAD_SECONDS for the first piece of its body.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pieces: list[bytes] = []
        self._size = 0
        self._sending: asyncio.Handle | None = None
        self._delayed = False  # whether `_sending` is a timer
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]
        self.abort = transport.abort  # type: ignore[method-assign]

    def write(self, data: Any) -> None:
        if self._size + len(data) > LARGEST_COPY:
            self._send()
            self._transport.write(data)
            return
        if self._delayed and self._sending is not None:
            self._sending.cancel()
            self._sending, self._delayed = None, False
        if self._sending is None:
            self._sending = self._loop.call_soon(self._end_turn)
        self._pieces.append(data)
        self._size += len(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _end_turn(self) -> None:
        if len(self._pieces) == 1 and self._pieces[0][-len(STREAM_HEAD) :] == STREAM_HEAD:
            self._sending, self._delayed = self._loop.call_later(HEAD_SECONDS, self._send), True
        else:
            self._send()

    def _send(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending, self._delayed = None, False
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self.is_closing():
            self._transport.write(b"".join(pieces))
