"""The HTTP connection of the server: what uvicorn leaves without bound has one here.

Neither uvicorn nor its parser bounds how long a client may take to send a request, or how long its head may
be: a few hundred clients that send a byte now and then would hold every descriptor, and one endless header
all memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 1 << 16  # bytes of request line and headers
SLOWEST = 16_000  # bytes a second that a long body must come at, a slow telephone's upload
SNIFFED = 1 << 16  # bytes of a refused request's body that are looked at
LONGEST_REFUSED = 1 << 20  # bytes of a refused request's body that are read, so that its client sees why
TIMEOUT, TOO_LARGE = b"408 Request Timeout", b"431 Request Header Fields Too Large"

Pairs = list[tuple[bytes, bytes]]


class Door(Protocol):
    """Refuses requests by their heads, so that refusing costs next to nothing."""

    def closed(self, method: bytes, target: bytes, headers: Pairs) -> bool:
        """Whether such a request would be refused whatever its body says."""

    def refusal(self, scope: MutableMapping[str, Any], beginning: bytes) -> tuple[Pairs, bytes]:
        """Headers and body of the answer, a 429, to a request whose body begins so.

        The scope is an ASGI one's method, path and headers.
        """


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request is not here whole, head and body, in time.

    That is `read_seconds`, and a second more for every SLOWEST bytes of a body, so that a long upload has the
    time it needs, and one that trickles in has not. Also closes one that is opened and then silent. An answer
    is not counted: that has bounds of its own.

    A request that finds the door closed never reaches the application: under overload most do, and each would
    cost as much as a text.
    """

    read_seconds = 30.0
    door: Door | None = None

    _head = _body = 0
    _began = 0.0
    _in_head = True
    _overdue: asyncio.TimerHandle | None = None
    _refusing: bytearray | None = None  # the beginning of the body of a request that is being refused

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
        if self._is_refused():
            self._refusing = bytearray()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if self._refusing is None:
            super().on_body(body)
        elif len(self._refusing) < SNIFFED:
            self._refusing += body
        elif self._body > LONGEST_REFUSED and not self.transport.is_closing():
            self._end(b"413 Content Too Large", "the server is full, and does not read so long a body")

    def on_message_complete(self) -> None:
        self._received()
        self._in_head, self._head, self._body = True, 0, 0
        if self._refusing is None or self.door is None:
            super().on_message_complete()
        else:
            self._refuse(self.door, bytes(self._refusing))
            self._refusing = None

    def _is_refused(self) -> bool:
        if self.door is None or self.expect_100_continue:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False  # pipelined: its answer has to wait for the one before
        return self.door.closed(self.parser.get_method(), self.url, self.headers)

    def _refuse(self, door: Door, beginning: bytes) -> None:
        path = self.url.partition(b"?")[0].decode("ascii", "replace")
        request = {"method": self.parser.get_method().decode("ascii"), "path": path, "headers": self.headers}
        headers, body = door.refusal(request, beginning)
        lines = [b"%b: %b\r\n" % pair for pair in (*self.server_state.default_headers, *headers)]
        self.transport.write(b"".join((b"HTTP/1.1 429 Too Many Requests\r\n", *lines, b"\r\n", body)))
        if self.parser.should_keep_alive():
            self.on_response_complete()
        else:
            self.transport.close()

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
    """The connection's class, for `uvicorn.Config(http=…)`, with a client's time to send a request.

    Its `door` may be set once there is an application.
    """
    return type("BoundedHttp", (BoundedHttp,), {"read_seconds": seconds})
