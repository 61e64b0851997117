"""The clients of `benchmarks.soak`: requests over kept connections, limited in number as in a proxy.

The result of a request is the status of its answer, or
- `left`: the client disconnected intentionally after the answer had started;
- `lost`: the status was 200, but a client that stayed connected did not get the whole answer;
- `late`: there was no complete answer within LATEST seconds;
- `reset`: a new connection was closed before any answer;
- `refused`: the connection was refused;
- `unconnected`: no connection within CONNECT_SECONDS, or all connections that a proxy may hold were in use.
"""

import asyncio
import json
import time

LENGTH = 1000
KINDS = {"plain": 55, "stream": 30, "leaves": 5, "stalls": 5, "sends slowly": 5}
STREAMED = ("stream", "leaves", "stalls")
STALL_SECONDS, SLOW_SECONDS = 3.0, 2.0
LATEST = 90  # seconds that an answer may take
CONNECT_SECONDS = 10
MOST = 2048  # connections


class Broken(Exception):
    """The connection was closed before the answer was complete; `begun`: whether the answer had started."""

    def __init__(self, begun):
        self.begun = begun


class Connection(asyncio.Protocol):
    """One connection to the server, used by one request at a time."""

    def __init__(self, closed):
        self.closed, self.transport, self.answer, self.used = closed, None, None, False
        self._data, self._head, self._length = bytearray(), None, None
        self._first = None

    def connection_made(self, transport):
        self.transport = transport

    def expect(self):
        """(answer, first): futures of (status, body), and of the arrival of the first bytes."""
        loop = asyncio.get_running_loop()
        self._data, self._head, self._length = bytearray(), None, None
        self.answer, self._first = loop.create_future(), loop.create_future()
        return self.answer, self._first

    def data_received(self, data):
        self._data += data
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        if self._head is None and (at := self._data.find(b"\r\n\r\n")) >= 0:
            self._head = bytes(self._data[:at]).lower()
            del self._data[: at + 4]
            _, known, rest = self._head.partition(b"content-length:")
            self._length = int(rest.partition(b"\r\n")[0]) if known else None
        if self._head is None or self.answer.done():
            return
        if self._length is None:
            if self._data.endswith(b"0\r\n\r\n"):
                self._finish(unchunked(self._data))
        elif len(self._data) >= self._length:
            self._finish(bytes(self._data))

    def connection_lost(self, exc):
        self.closed(self)
        for future in (self.answer, self._first):
            if future is not None and not future.done():
                future.set_exception(Broken(self._head is not None or bool(self._data)))
                future.exception()  # marks the exception as retrieved

    def _finish(self, body):
        self.used = True
        self.answer.set_result((int(self._head[9:12]), body))


def unchunked(data):
    pieces, at = [], 0
    while size := int(data[at : (end := data.index(b"\r\n", at))], 16):
        pieces.append(data[end + 2 : end + 2 + size])
        at = end + 4 + size
    return b"".join(pieces)


class Pool:
    """Kept connections: used by one request at a time, opened if none is free, at most MOST."""

    def __init__(self, port):
        self.port, self.free, self.open, self.peak = port, [], 0, 0

    async def take(self):
        """A connection, or None if no more are allowed."""
        while self.free:
            connection = self.free.pop()
            if not connection.transport.is_closing():
                return connection
        if self.open >= MOST:
            return None
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            loop = asyncio.get_running_loop()
            making = loop.create_connection(lambda: Connection(self._closed), "127.0.0.1", self.port)
            return (await asyncio.wait_for(making, CONNECT_SECONDS))[1]
        except BaseException:
            self.open -= 1
            raise

    def give_back(self, connection):
        self.free.append(connection)

    def _closed(self, connection):
        self.open -= 1


def request(port, seed, streamed):
    body = json.dumps({"prompt": "the ", "length": LENGTH, "seed": seed, "stream": streamed}).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def judged(status, body, streamed):
    """The result that a complete answer counts as."""
    if status != 200:
        return str(status)
    if streamed:
        return "200" if b"event: done\n" in body else "lost"
    return "200" if len(json.loads(body)["text"]) == LENGTH else "lost"


async def one(pool, kind, seed, due, answers):
    """One client: send a request that was due at a given time, and append its result to `answers`."""
    data, again = request(pool.port, seed, kind in STREAMED), True
    while again:  # a kept connection may have been closed just now; a proxy would retry
        result, again = await attempt(pool, kind, data)
    answers.append((kind, result, 1000 * (time.perf_counter() - due)))


async def attempt(pool, kind, data):
    """The result of a request on one connection, and whether to retry it on another."""
    try:
        connection = await pool.take()
    except ConnectionError:
        return "refused", False
    except OSError:
        return "unconnected", False
    if connection is None:
        return "unconnected", False
    used = connection.used
    try:
        async with asyncio.timeout(LATEST):
            return await exchange(pool, connection, kind, data), False
    except TimeoutError:
        connection.transport.abort()
        return "late", False
    except Broken as error:
        if error.begun:
            return "lost", False
        return "reset", used
    except RuntimeError:  # uvloop's, for writing to a connection that is closed
        return "reset", used


async def exchange(pool, connection, kind, data):
    answer, first = connection.expect()
    if kind == "sends slowly":
        for at in range(0, len(data), 40):
            connection.transport.write(data[at : at + 40])
            await asyncio.sleep(SLOW_SECONDS * 40 / len(data))
    else:
        connection.transport.write(data)
    if kind == "leaves":
        await first
        connection.transport.abort()
        return "left"
    if kind == "stalls":
        await first
        connection.transport.pause_reading()
        await asyncio.sleep(STALL_SECONDS)
        connection.transport.resume_reading()
    status, body = await answer
    pool.give_back(connection)
    return judged(status, body, kind in STREAMED)
