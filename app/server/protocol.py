"""The HTTP connections of the server, with the limits that uvicorn lacks.

Neither uvicorn nor its parser limits how long a client may take to send a request, how many bytes of it are
not body, or how many connections are open. A few hundred clients that send a byte now and then could hold
every descriptor, and one endless header or trailer could fill memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.server.headers import Pairs
from app.server.transport import AnswerTransport

HEAD_LIMIT = 1 << 16  # bytes of request line and headers, and of consecutive non-body bytes after them
FRAMING = 16  # non-body bytes allowed per byte of body: a chunk may hold a single byte
PIECE = 1 << 14  # bytes parsed before the limits are checked again
SLOWEST = 64_000  # minimum speed of a long body in bytes per second, that of a slow line
SNIFFED = 1 << 16  # bytes of a refused request's body that are inspected
LONGEST_REFUSED = 1 << 20  # bytes of a refused request's body that are read before its answer
BAD_REQUEST, TIMEOUT = b"400 Bad Request", b"408 Request Timeout"
TOO_LARGE, UNAVAILABLE = b"431 Request Header Fields Too Large", b"503 Service Unavailable"
PROBE_SECONDS = 0.5  # interval of the checks whether a half-closed client still reads
GONE = "charloom.gone"  # in a request's scope: a future that is done once its connection is lost
CONNECTION = (b"close", b"keep-alive")  # the tokens of `Connection` that this server handles
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Door(Protocol):
    """Refuses requests by their headers, at almost no cost."""

    def closed(self, method: bytes, target: bytes, headers: Pairs) -> bool:
        """Whether to refuse such a request, whatever its body contains."""

    def refusal(self, scope: MutableMapping[str, Any], beginning: bytes) -> tuple[Pairs, bytes]:
        """Headers and body of the 429 answer to a request whose body starts with `beginning`.

        The scope has the method, path, headers and client of an ASGI scope.
        """


class Crowd:
    """The connections of one server whose request is incomplete, in order of how long they have waited."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._idle: dict[BoundedHttp, None] = {}
        self._receiving: dict[BoundedHttp, None] = {}

    def idle(self, connection: BoundedHttp) -> None:
        """The connection is between two requests, or sending the head of one."""
        self.busy(connection)
        self._idle[connection] = None

    def receiving(self, connection: BoundedHttp) -> None:
        """The connection is sending the body of its request."""
        self.busy(connection)
        self._receiving[connection] = None

    def busy(self, connection: BoundedHttp) -> None:
        """The request is complete, or the connection is closed."""
        self._idle.pop(connection, None)
        self._receiving.pop(connection, None)

    def longest(self) -> BoundedHttp | None:
        """The connection to close when a new one needs its place."""
        return next(iter(self._idle), None) or next(iter(self._receiving), None)


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request, head and body, is not complete in time, even if nothing was sent.

    The limit is `read_seconds` plus one second for every SLOWEST bytes of body received, which is enough for
    a long upload but not for one that trickles in. Answers are not included: they have their own limits.

    At the maximum number of connections, each new one closes the one that has been idle longest.

    A request that the door refuses never reaches the application: under overload most requests are refused,
    and each would cost as much as a text.
    """

    read_seconds = 30.0
    door: Door | None = None
    crowd = Crowd(1 << 20)

    _gap = _received_bytes = _body = 0  # consecutive non-body bytes; bytes and body bytes of this request
    _began = 0.0
    _in_head = True
    _rejected = _upgrading = _half_closed = False
    _overdue: asyncio.TimerHandle | None = None
    _refusing: bytearray | None = None  # the first bytes of a refused request's body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(AnswerTransport(transport, self.loop))
        self._gone = self.loop.create_future()
        if len(self.connections) > self.crowd.most:
            longest = self.crowd.longest()
            if longest is None:
                self._end(UNAVAILABLE, f"all {self.crowd.most} connections of the server are in use")
                return
            self.crowd.busy(longest)
            longest.transport.abort()
        self.crowd.idle(self)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._received()
        self.crowd.busy(self)
        super().connection_lost(exc)
        self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        start = 0
        while start < len(data) and (parsed := self._parse(data[start : start + PIECE])):
            start += parsed

    def _parse(self, piece: bytes) -> int:
        """Parse `piece`; return how many of its bytes are done, or 0 to parse nothing more."""
        self._gap += len(piece)
        self._received_bytes += len(piece)
        try:
            parsed = self._feed(piece)
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self.send_400_response("Invalid HTTP request received.")
            return 0
        if self._is_too_large() and not self.transport.is_closing():
            what = "request's head" if self._in_head else "part of the request that is not its body"
            self._end(TOO_LARGE, f"the {what} must be at most {HEAD_LIMIT} bytes")
        return 0 if self.transport.is_closing() else parsed

    def _feed(self, piece: bytes) -> int:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as stopped:
            self._go_on_without_upgrade()
            return int(stopped.args[0])
        return len(piece)

    def _is_too_large(self) -> bool:
        rest = self._received_bytes - self._body
        return self._gap > HEAD_LIMIT or rest > 2 * HEAD_LIMIT + FRAMING * self._body

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[GONE] = self._gone  # type: ignore[literal-required]
        self._rejected = self._upgrading = False
        self._expect()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer is not a header of the request
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        self._in_head, self._gap = False, 0
        self.crowd.receiving(self)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._rejected = True
            self._end(BAD_REQUEST, f"a request must have one Host header. Given: {hosts}")
        elif self._is_refused():
            self._refusing = bytearray()
        else:
            super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._gap = 0

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._gap = 0
        if self._rejected:
            return
        if self._refusing is None:
            super().on_body(body)
        elif len(self._refusing) < SNIFFED:
            self._refusing += body
        elif self._body > LONGEST_REFUSED and not self.transport.is_closing():
            self._end(b"413 Content Too Large", "the server is full and does not read a body of this length")

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._received()
        self.crowd.busy(self)
        self._in_head, self._gap, self._received_bytes, self._body = True, 0, 0, 0
        if self._rejected:
            return
        if self._refusing is None or self.door is None:
            super().on_message_complete()
            if not self.pipeline:
                self.flow.resume_reading()  # a long body paused it; a disconnect would go unnoticed
            if self.cycle.response_complete:
                self.crowd.idle(self)
        else:
            self._refuse(self.door, bytes(self._refusing))
            self._refusing = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._half_closed and not self.pipeline:
            self.transport.close()
        elif self._in_head and not self.pipeline:
            self.crowd.idle(self)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep answering a client that has only shut down its sending half (`nc -N`).

        A client that has disconnected looks the same, so `100 Continue` is sent to detect that.
        """
        waits = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        self._half_closed = waits and self.cycle.scope["http_version"] == "1.1"
        if self._half_closed:
            self._probe()
        return self._half_closed

    def _probe(self) -> None:
        if self.transport.is_closing() or self.cycle.response_started:
            return
        self.transport.write(CONTINUE)
        self.loop.call_later(PROBE_SECONDS, self._probe)

    def _go_on_without_upgrade(self) -> None:
        """Parse the head again without its unsupported upgrade: the parser would drop the body."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._end(BAD_REQUEST, "CONNECT is not supported: this server is not a proxy")
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b\r\n" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.lower().split(b",") if token.strip() in CONNECTION]
                value = b",".join(kept)
            if name != b"upgrade" and (value or name != b"connection"):
                lines.append(b"%b: %b\r\n" % (name, value))
        head = b"".join((*lines, b"\r\n"))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._gap = self._received_bytes = len(head)
        self.parser.feed_data(head)

    def _is_refused(self) -> bool:
        if self.door is None or self.expect_100_continue:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False  # pipelined: its answer must wait for the previous one
        return self.door.closed(self.parser.get_method(), self.url, self.headers)

    def _refuse(self, door: Door, beginning: bytes) -> None:
        path = self.url.partition(b"?")[0].decode("ascii", "replace")
        method = self.parser.get_method().decode("ascii")
        request = {"method": method, "path": path, "headers": self.headers, "client": self.client}
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
        """The deadline for the request, given the bytes received so far."""
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
        self._end(TIMEOUT, f"the request was not complete within {self.loop.time() - self._began:.3g} s")

    def _end(self, status: bytes, message: str) -> None:
        """Send an error, unless an answer has begun, and close the connection."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            text = message.encode()
            head = (
                b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head % (status, len(text)) + text)
        self.transport.close()


def bounded_http(seconds: float, connections: int, door: Door | None = None) -> type[BoundedHttp]:
    """The class of a server's connections, for `uvicorn.Config(http=…)`.

    Args:
        seconds: how long a client may take to send a request.
        connections: maximum number of open connections.
    """
    bounds = {"read_seconds": seconds, "crowd": Crowd(connections), "door": door}
    return type("BoundedHttp", (BoundedHttp,), bounds)
