"""Clients that send slowly, endlessly or nothing are disconnected, and other clients are not affected."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.runs import LONGEST_WAIT, wait_until
from tests.support.servers import server_process
from tests.support.sockets import connected, descriptors, memory, rest

CROWD = 200
HEAD = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(trained_root: Path) -> Iterator[httpx.Client]:
    with server_process(trained_root, read_seconds=0.5, access_log=False) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize(
    "begin",
    [b"", b"POST /gene", HEAD, HEAD + b"Content-Length: 100\r\n\r\n", HEAD + b"Content-Length: 100\r\n\r\n{"],
    ids=["nothing", "half a line", "half a head", "no body", "half a body"],
)
def test_request_not_sent_in_time_is_closed(server, begin):
    with connected(server) as connection:
        connection.sendall(begin)
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.slow
def test_many_slow_clients_are_closed_and_others_are_served(server):
    before = descriptors(server)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connected(server)) for _ in range(CROWD)]
        end = time.monotonic() + LONGEST_WAIT
        waiting = set(crowd)
        for connection in crowd:
            connection.sendall(HEAD)
        while waiting:
            assert time.monotonic() < end, f"{len(waiting)} slow clients are still connected"
            assert server.post("/generate", json={"length": 5}).status_code == 200
            for connection in list(waiting):
                try:
                    connection.sendall(b"x")  # one byte at a time, like slowloris
                except OSError:
                    waiting.discard(connection)
    wait_until(lambda: descriptors(server) <= before + 1, "the descriptors are released")


def test_request_sent_in_parts_in_time_is_answered(server):
    body = b'{"length": 5, "seed": 1}'
    whole = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
    with connected(server) as connection:
        for at in range(0, len(whole), 7):
            connection.sendall(whole[at : at + 7])
        assert rest(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_kept_connection_may_outlast_the_time_limit_of_a_request(server):
    """The limit is half a second here; requests follow one another on one connection for longer."""
    ports, end = set(), time.monotonic() + 1.2
    while time.monotonic() < end:
        with server.stream("POST", "/generate", json={"length": 5}) as answer:
            assert answer.status_code == 200
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            answer.read()
    assert len(ports) == 1, "the connection was closed"


@pytest.mark.parametrize("start", [b"GET /", HEAD + b"X-Long: ", HEAD])
def test_endless_head_is_refused_in_limited_memory(server, start):
    before = memory(server)
    piece = (b"a: b\r\n" if start == HEAD else b"aaaaaa") * 5000
    with connected(server) as connection, contextlib.suppress(OSError):
        connection.sendall(start)
        for _ in range(3000):  # 90 MB
            connection.sendall(piece)
        raise AssertionError("the whole head was accepted")
    assert memory(server) < before + (20 << 20)
    assert server.get("/healthz").status_code == 200


def test_data_that_is_not_http_is_answered_with_400(server):
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100, b"hello\r\n\r\n"):
        with connected(server) as connection:
            connection.sendall(garbage)
            assert rest(connection).startswith(b"HTTP/1.1 400 ")


def test_endless_body_is_refused_in_limited_memory(server):
    before = memory(server)
    with connected(server) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(3000):
                connection.sendall(b"8000\r\n" + bytes(0x8000) + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert memory(server) < before + (20 << 20)
    assert server.get("/healthz").status_code == 200


@pytest.mark.slow
def test_unread_streams_end_and_free_their_places(trained_root):
    limits = {"deadline_seconds": 1, "max_streams": 8, "max_length": 3_000_000, "access_log": False}
    with server_process(trained_root, **limits) as client, contextlib.ExitStack() as stack:
        body = b'{"length": 2000000, "stream": true}'
        for _ in range(8):
            connection = stack.enter_context(connected(client))
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(
            lambda: client.post("/generate", json={"length": 5, "stream": True}).status_code == 200,
            "a place for a stream is free again",
        )


@pytest.mark.slow
def test_long_body_sent_slowly_but_steadily_is_accepted(tmp_path):
    """400 kB in a second, where a short request has half a second."""
    (tmp_path / "store").mkdir()
    body = b"a mat sat on the cat " * 20_000
    head = b"POST /runs?name=mine HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    server = server_process(tmp_path / "store", read_seconds=0.5, access_log=False)
    with server as client, connected(client) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 40_000):
            connection.sendall(body[at : at + 40_000])
            time.sleep(0.1)
        assert rest(connection).startswith(b"HTTP/1.1 202 ")


@pytest.mark.slow
def test_upload_below_the_minimum_speed_frees_its_place(tmp_path):
    """At 32 kB/s; eight such uploads would otherwise take all places."""
    (tmp_path / "store").mkdir()
    head = b"POST /runs?name=mine HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
    server = server_process(tmp_path / "store", read_seconds=0.5, max_uploads=1, access_log=False)
    with server as client, connected(client) as connection:
        connection.sendall(head + b"Content-Length: 64000000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(60):
                connection.sendall(b"a" * 3200)
                time.sleep(0.1)
            raise AssertionError("the upload was not closed")
        answer = client.post("/runs", params={"name": "other"}, content=b"a mat sat on the cat " * 1000)
        assert answer.status_code == 202


@pytest.mark.slow
def test_one_client_cannot_take_all_places_for_uploads(tmp_path):
    (tmp_path / "store").mkdir()
    slow = (
        b"POST /runs?name=mine HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 1\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 64000000\r\nExpect: 100-continue\r\n\r\n"
    )
    keys = "ann:1:train,bob:2:train"
    server = server_process(tmp_path / "store", max_uploads=4, api_keys=keys, access_log=False)
    with server as client, contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(connected(client))
            connection.sendall(slow)
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # the upload has taken its place

        def upload(key: int) -> int:
            options = {"params": {"name": f"run-{key}"}, "headers": {"authorization": f"Bearer {key}"}}
            return client.post("/runs", content=b"a mat sat on the cat " * 1000, **options).status_code

        assert upload(1) == 429
        assert upload(2) == 202
