"""The HTTP connection of the server: what uvicorn leaves without bound has one here.

Neither uvicorn nor its parser bounds how long a client may take to send a request, or how long its head may
be: a few hundred clients that send a byte now and then would hold every descriptor, and one endless header
all memory.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 1 << 16  # bytes of request line and headers
SLOWEST = 16_000  # bytes a second that a long body must come at, a slow telephone's upload
TIMEOUT, TOO_LARGE = b"408 Request Timeout", b"431 Request Header Fields Too Large"


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request is not here whole, head and body, in time.

    That is `read_seconds`, and a second more for every SLOWEST bytes of a body, so that a long upload has the
    time it needs, and one that trickles in has not. Also closes one that is opened and then silent. An answer
    is not counted: that has bounds of its own.
    """

    read_seconds = 30.0

    _head = _body = 0
    _began = 0.0
    _in_head = True
    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._received()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > HEAD_LIMIT and not self.transport.is_closing():
            self._end(TOO_LARGE, f"the request's head must be at most {HEAD_LIMIT} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._received()
        self._in_head, self._head, self._body = True, 0, 0
        super().on_message_complete()

    def _expect(self) -> None:
        if self._overdue is None:
            self._began = self.loop.time()
            self._overdue = self.loop.call_at(self._latest(), self._too_late)

    def _latest(self) -> float:
        """When the request should be here, given what has come of it."""
        return self._began + self.read_seconds + self._body / SLOWEST

    def _received(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _too_late(self) -> None:
        self._overdue = None
        if self._latest() > self.loop.time():
            self._overdue = self.loop.call_at(self._latest(), self._too_late)
            return
        self._end(TIMEOUT, f"the request was not here within {self.loop.time() - self._began:.3g} s")

    def _end(self, status: bytes, message: str) -> None:
        """Says why, unless an answer has begun, and closes."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            text = message.encode()
            head = (
                b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head % (status, len(text)) + text)
        self.transport.close()


def bounded_http(seconds: float) -> type[BoundedHttp]:
    """The connection's class, for `uvicorn.Config(http=…)`, with a client's time to send a request."""
    return type("BoundedHttp", (BoundedHttp,), {"read_seconds": seconds})
