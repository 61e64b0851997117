"""Limits of a connection before its request is complete, and unusual requests."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.server.protocol import HEAD_LIMIT, PIECE, BoundedHttp
from tests.support.runs import LONGEST_WAIT, wait_until
from tests.support.servers import application, server_process
from tests.support.sockets import connected, memory, rest

HEAD = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH_5 = b"c\r\n" + b'{"length":5}' + b"\r\n0\r\n"
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def server(trained_root: Path) -> Iterator[httpx.Client]:
    with server_process(trained_root, access_log=False, api_keys="ann:s3cret:admin") as client:
        client.headers["authorization"] = "Bearer s3cret"
        yield client


@pytest.fixture(scope="module")
def open_server(trained_root: Path) -> Iterator[httpx.Client]:
    with application(trained_root) as client:
        yield client


@pytest.mark.parametrize("key", [b"Bearer s3cret", b"Bearer wrong"])
@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (CHUNKED + LENGTH_5, b"a:b\r\n" * 10_000),
        (CHUNKED + LENGTH_5 + b"a: ", b"b" * 50_000),
        (CHUNKED + b"1;extension=", b"e" * 50_000),
        (CHUNKED, b"1;" + b"e" * 60_000 + b"\r\n \r\n"),
        (HEAD, b"a:b\r\n" * 10_000),
        (b"GET /", b"a" * 50_000),
    ],
    ids=["trailers", "one trailer", "one extension", "extensions", "head", "request line"],
)
def test_bytes_outside_the_body_are_limited(server: httpx.Client, key: bytes, begin: bytes, piece: bytes):
    before = memory(server)
    begin = begin.replace(b"\r\nHost", b"\r\nAuthorization: " + key + b"\r\nHost", 1)
    with connected(server) as connection, contextlib.suppress(OSError):
        connection.sendall(begin)
        for _ in range(2000):
            connection.sendall(piece)
            assert memory(server) < before + 10 * MEGABYTE
        raise AssertionError("everything was read")
    assert memory(server) < before + 10 * MEGABYTE
    assert server.get("/healthz").status_code == 200


def test_parsing_stops_soon_after_the_limit(open_server: httpx.Client, monkeypatch):
    """The rest of the same read is not parsed, as that would block all other connections."""
    parsed = []
    monkeypatch.setattr(BoundedHttp, "on_header", lambda self, name, value: parsed.append(len(name + value)))
    with connected(open_server) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\n" + b"a:b\r\n" * (4 * HEAD_LIMIT // 5))
        rest(connection)
    assert HEAD_LIMIT / 2 < 5 * len(parsed) <= HEAD_LIMIT + PIECE


@pytest.mark.parametrize(
    "begin", [CHUNKED + LENGTH_5, CHUNKED + b"1;extension="], ids=["trailers", "extension"]
)
def test_bytes_outside_the_body_are_bounded_while_a_request_is_refused(
    trained_root, monkeypatch, begin: bytes
):
    monkeypatch.setattr("app.api.shedding.Shedding.closed", lambda *_: True)
    with application(trained_root) as full, connected(full) as connection:
        connection.sendall(begin)
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(b"a:b\r\n" * 10_000 if begin.endswith(b"0\r\n") else b"e" * 50_000)
            raise AssertionError("it was all read")
        assert full.get("/healthz").status_code == 429


def test_trailer_does_not_count_as_a_header(server: httpx.Client):
    with connected(server) as connection:
        connection.sendall(CHUNKED + LENGTH_5 + b"Authorization: Bearer s3cret\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")


def test_trailer_does_not_replace_the_address_of_the_client(trained_root, caplog):
    def addresses() -> list[str]:
        return [record.client for record in caplog.records if record.name == "app.requests"]

    caplog.set_level("DEBUG", "app.requests")
    with (
        application(trained_root, access_log=True, trusted_proxies="127.0.0.1") as proxied,
        connected(proxied) as connection,
    ):
        connection.sendall(CHUNKED + LENGTH_5 + b"X-Forwarded-For: 192.0.2.9\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        wait_until(addresses, "it is logged")
    assert addresses() == ["127.0.0.1"]


def test_body_in_tiny_chunks_is_read(open_server: httpx.Client):
    body = json.dumps({"length": 5, "prompt": "a" * 9_000}).encode() + b" " * 2 * HEAD_LIMIT
    with connected(open_server) as connection:
        connection.sendall(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: other.example\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
    ],
    ids=["two", "none", "connect"],
)
def test_request_without_exactly_one_host_is_refused(open_server: httpx.Client, head: bytes):
    with connected(open_server) as connection:
        connection.sendall(head)
        assert rest(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("framing", ["length", "chunks", "split"])
def test_request_with_an_unsupported_upgrade_is_answered(open_server: httpx.Client, framing: str):
    body = b'{"length":3}'
    head = HEAD.replace(
        b"Host", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\nHost"
    )
    if framing == "chunks":
        request = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"c\r\n" + body + b"\r\n0\r\n\r\n"
    else:
        request = head + b"Content-Length: 12\r\n\r\n" + body
    pieces = (
        [request] if framing != "split" else [request[:40], request[40:-12], request[-12:-6], request[-6:]]
    )
    with connected(open_server) as connection:
        for _ in range(2):  # on the same connection
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.02)
            answer = connection.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["text"]) == 3
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close, upgrade\r\nUpgrade: x\r\n\r\n"
        )
        last = rest(connection)
        assert last.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in last


def test_client_with_a_half_closed_connection_is_answered(open_server: httpx.Client, monkeypatch):
    # so that only the end of the answer closes the connection
    monkeypatch.setattr(BoundedHttp, "timeout_keep_alive_handler", lambda self: None)
    body = b'{"length": 9000, "model": "gru"}'
    with connected(open_server) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        connection.shutdown(socket.SHUT_WR)
        answer = rest(connection)
    while answer.startswith(b"HTTP/1.1 100 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["text"]) == 9000


@pytest.mark.slow
def test_work_of_a_disconnected_client_is_cancelled(trained_root):
    limits = {"max_length": 3_000_000, "deadline_seconds": 600}
    with application(trained_root, **limits) as client:
        body = b'{"length": 3000000}'

        def running() -> bool:
            return "num_requests_running 1.0" in client.get("/metrics").text

        with connected(client) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wait_until(running, "the text is being written")
        wait_until(lambda: not running(), "the work is cancelled")


@pytest.mark.slow
def test_idle_connections_are_closed_for_new_ones(trained_root):
    """With 512 descriptors; each of 600 connections could hold one for `read_seconds`."""
    with (
        server_process(trained_root, descriptors=512, read_seconds=600, access_log=False) as client,
        contextlib.ExitStack() as stack,
    ):
        crowd = []
        for number in range(600):
            crowd.append(stack.enter_context(connected(client)))
            if number % 2:
                crowd[-1].sendall(HEAD)
        for _ in range(30):
            assert httpx.get(f"{client.base_url}/healthz", timeout=LONGEST_WAIT).status_code == 200
        crowd[0].settimeout(LONGEST_WAIT)
        assert rest(crowd[0]) == b"", "the connection that was idle longest was not closed first"


@pytest.mark.slow
def test_connections_with_slow_bodies_are_closed_for_new_ones(trained_root):
    with (
        server_process(trained_root, descriptors=512, read_seconds=600, access_log=False) as client,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(600):
            slow = stack.enter_context(connected(client))
            with contextlib.suppress(OSError):
                slow.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        assert httpx.get(f"{client.base_url}/healthz", timeout=LONGEST_WAIT).status_code == 200


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection without an answer."""
    connection.settimeout(0.3)
    try:
        return rest(connection) == b""
    except TimeoutError:
        return False


@pytest.mark.slow
def test_connection_that_is_answered_is_not_closed_for_a_new_one(trained_root, monkeypatch):
    monkeypatch.setattr("app.main.most_connections", lambda: 1)
    body = b'{"length": 50000, "stream": true}'
    head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        application(trained_root, max_length=50_000) as full,
        connected(full) as answered,
    ):
        answered.sendall(head + body)
        assert answered.recv(1) == b"H", "the answer has not begun"
        with connected(full) as refused:
            assert rest(refused).endswith(b"all 1 connections of the server are in use")
        assert rest(answered).endswith(b"\r\n0\r\n\r\n"), "the answer was cut off"


def test_connection_idle_after_its_answer_is_closed_for_a_new_one(trained_root, monkeypatch):
    monkeypatch.setattr("app.main.most_connections", lambda: 1)
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with application(trained_root) as full, connected(full) as first:
        first.sendall(request)
        assert first.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        with connected(full) as second:
            second.sendall(request)
            assert second.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert is_closed(first)


def test_connection_that_has_ended_is_not_closed_for_a_new_one(trained_root, monkeypatch):
    """Otherwise the oldest idle connection stays open, and ended ones stay in memory."""
    monkeypatch.setattr("app.main.most_connections", lambda: 2)
    with application(trained_root) as full, connected(full) as ended:
        ended.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert rest(ended).startswith(b"HTTP/1.1 200 ")
        with connected(full) as first, connected(full), connected(full):
            assert is_closed(first)


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\nHost"


def test_pipelined_requests_with_upgrades_are_all_answered(open_server: httpx.Client):
    request = b"GET /healthz HTTP/1.1\r\nHost".replace(b"Host", UPGRADE) + b": localhost\r\n\r\n"
    last = request.replace(b"Connection: Upgrade", b"Connection: close, Upgrade")
    with connected(open_server) as connection:
        connection.sendall(request * 1500 + last)
        answers = rest(connection)
    assert answers.count(b"HTTP/1.1 200 ") == 1501
    assert answers.count(b"connection: close") == 1


def test_long_body_with_an_unsupported_upgrade_is_read_whole(open_server: httpx.Client):
    body = json.dumps({"length": 3, "prompt": "a" * 9_000, "stop": [], "user": "x" * 3 * PIECE}).encode()
    head = HEAD.replace(b"Host", UPGRADE) + b"Content-Length: %d\r\n\r\n" % len(body)
    with connected(open_server) as connection:
        connection.sendall(head + body)
        answer = connection.recv(1 << 16)
        assert b"user is not a field of this request" in answer, answer


@pytest.mark.parametrize("offer", [b"websocket", b"TLS/1.0", b"HTTP/2.0, SHTTP/1.3", b"h2c"])
def test_upgrade_of_any_kind_is_an_ordinary_request(open_server: httpx.Client, offer: bytes):
    for version in (b"1.1", b"1.0"):
        with connected(open_server) as connection:
            connection.sendall(
                b"GET /healthz HTTP/%b\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: %b\r\n\r\n"
                % (version, offer)
            )
            assert rest(connection).startswith(b"HTTP/1.1 200 ")
