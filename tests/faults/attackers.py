"""The attacks of `tests.faults.attacks`: the requests that each sends, and the answers that it expects."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON_HEAD = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHAT = b"/v1/chat/completions"
LOGPROBS = {
    "model": "gru",
    "messages": [{"role": "user", "content": "the "}],
    "logprobs": True,
    "top_logprobs": 20,
}
HUGE = LOGPROBS | {"n": 16, "max_tokens": 10_000}
LARGEST = LOGPROBS | {"n": 16, "max_tokens": 1_400}  # the largest that the default budget allows
UNANSWERED, CLOSED = "no answer yet", "closed"


@dataclass
class Target:
    """A server that is under attack until `end`, with a count of its answers by status."""

    port: int
    end: float
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, outcome: str) -> None:
        with self.lock:
            self.seen[outcome] += 1

    def left(self) -> float:
        return self.end - time.monotonic()

    def connect(self, buffer: int = 0) -> socket.socket:
        """A connection whose timeout is the rest of the attack."""
        connection = socket.socket()
        connection.settimeout(max(0.1, self.left()))
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def outcome(self, connection: socket.socket, whole: bool = True) -> None:
        """Count the status of the answer, and read all of it if `whole`."""
        try:
            start = connection.recv(1 << 16)
            while start.startswith(b"HTTP/1.1 100 "):
                start = start.partition(b"\r\n\r\n")[2] or connection.recv(1 << 16)
            self.count(start[9:12].decode() or CLOSED)
            while whole and connection.recv(1 << 16):
                pass
        except TimeoutError:
            self.count(UNANSWERED)
        except OSError:
            self.count(CLOSED)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> None:
        """Send one request and read its whole answer."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = {"host": "localhost", "connection": "close", "content-length": str(len(content))}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        request = f"{method} {path} HTTP/1.1\r\ncontent-type: application/json\r\n{head}\r\n"
        with self.connect() as connection:
            with contextlib.suppress(OSError):  # refused before the whole body was read
                connection.sendall(request.encode() + content)
            self.outcome(connection)

    def threads(self, count: int, work: Callable[[int], None]) -> None:
        """Call `work(number)` repeatedly in `count` threads until the end."""

        def repeat(number: int) -> None:
            while self.left() > 0.1:
                try:
                    work(number)
                except OSError:
                    self.count(CLOSED)

        started = [threading.Thread(target=repeat, args=(number,)) for number in range(count)]
        for one in started:
            one.start()
        for one in started:
            one.join()


def trailers(target: Target) -> None:
    """Chunked requests with an endless trailer, with and without a wrong key."""

    def attack(number: int) -> None:
        key = b"Authorization: Bearer wrong\r\n" if number % 2 else b""
        head = JSON_HEAD % b"/generate" + key + b"Transfer-Encoding: chunked\r\n\r\n"
        with target.connect() as connection:
            with contextlib.suppress(OSError):
                connection.sendall(head + b'c\r\n{"length":5}\r\n0\r\n')
                for _ in range(2000):
                    connection.sendall(b"a:b\r\n" * 10_000)
                target.count("everything was read")
            target.outcome(connection)

    target.threads(8, attack)


def other_sites(target: Target) -> None:
    """Requests that a page of another site, or of a rebound host name, can send."""
    evil = "https://evil.example"
    requests: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("POST", "/runs", {"origin": evil}),
        ("POST", "/runs/gru/fork", {"sec_fetch_site": "cross-site"}),
        ("DELETE", "/runs/gru", {"origin": "null"}),
        ("GET", "/runs/gru/export?text=true", {"host": "evil.example"}),
    )

    def attack(number: int) -> None:
        method, path, headers = requests[number % len(requests)]
        target.ask(method, path, {}, **headers)

    target.threads(4, attack)


def idle(target: Target) -> None:
    """More connections than the server has descriptors, every other one with half a request."""
    with contextlib.ExitStack() as stack:
        for number in range(1100):
            connection = stack.enter_context(target.connect())
            if number % 2:
                connection.sendall(JSON_HEAD % b"/generate")
        time.sleep(max(0.0, target.left()))


def large_chats(target: Target) -> None:
    """Requests for log-probabilities: the largest possible, and the largest allowed."""
    turn = Counter[int]()

    def attack(number: int) -> None:
        turn[number] += 1
        target.ask("POST", CHAT.decode(), LARGEST if turn[number] % 2 else HUGE)

    target.threads(8, attack)


def wrong_ranges(target: Target) -> None:
    """Range requests beyond the end of an export."""
    headers = {"range": "bytes=999999999999-"}
    target.threads(4, lambda _: target.ask("GET", "/runs/gru/export", **headers))


def unread_exports(target: Target) -> None:
    """40 exports that are not read, while other clients request exports and the list of runs."""
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(target.connect(buffer=2048))
            connection.sendall(b"GET /runs/gru/export HTTP/1.1\r\nHost: localhost\r\n\r\n")

        def attack(number: int) -> None:
            target.ask("GET", "/runs/gru/export" if number else "/runs")

        target.threads(2, attack)


def reports(target: Target) -> None:
    """Different reports of a run on a long text."""
    numbers = iter(range(10**9))
    target.threads(8, lambda _: target.ask("GET", f"/report?model=large&author={next(numbers)}"))


def watchers(target: Target) -> None:
    """More watchers of runs than allowed, 30 of them from the first event; texts are still streamed."""
    with contextlib.ExitStack() as stack:
        for number in range(30 + 256):
            again = b"Last-Event-ID: 0\r\n" if number < 30 else b""
            connection = stack.enter_context(target.connect())
            connection.sendall(b"GET /runs/waiting/events HTTP/1.1\r\nHost: localhost\r\n" + again + b"\r\n")
        target.threads(2, lambda _: target.ask("POST", "/generate", {"length": 50, "stream": True}))


def slow_uploads(target: Target) -> None:
    """Uploads at 16 kB/s that take all places for uploads; texts are still written.

    The server refuses them, or closes their connections, because they are slower than it allows.
    """
    head = b"POST /runs?name=slow HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"

    def attack(number: int) -> None:
        if number == 8:
            target.ask("POST", "/generate", {"length": 50})
            return
        with target.connect() as connection:
            with contextlib.suppress(OSError):  # closed: what was answered before that is read below
                connection.sendall(head + b"Content-Length: 60000000\r\n\r\n")
                while target.left() > 0.2 and not select.select([connection], [], [], 0.1)[0]:
                    connection.sendall(b"a mat sat on the" * 100)
            connection.settimeout(max(0.1, target.left()))
            target.outcome(connection, whole=False)
            time.sleep(min(0.5, max(0.0, target.left())))

    target.threads(9, attack)


def unread_answers(target: Target) -> None:
    """The largest JSON answer that is allowed, requested by four clients that do not read it."""
    body = json.dumps(LARGEST).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(target.connect(buffer=2048))
            connection.sendall(JSON_HEAD % CHAT + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        target.threads(1, lambda _: target.ask("POST", "/generate", {"length": 50}))


@dataclass(frozen=True)
class Attack:
    name: str
    run: Callable[[Target], None]
    expected: frozenset[str]
    settings: Mapping[str, Any] = field(default_factory=dict)


def attack(name: str, run: Callable[[Target], None], expected: str, **settings: object) -> Attack:
    outcomes = frozenset(expected.split()) | {UNANSWERED}
    return Attack(name, run, outcomes, settings)


ATTACKS = (
    attack("none", lambda target: time.sleep(max(0.0, target.left())), ""),
    attack("8 endless trailers", trailers, "401 429 431 closed", api_keys="ann:s3cret:admin"),
    attack("requests of other sites", other_sites, "403"),
    attack("1,100 idle connections, 1,024 descriptors", idle, "", descriptors=1024),
    attack("8 of the largest chats", large_chats, "200 400 429"),
    attack("exports of wrong ranges", wrong_ranges, "416 429"),
    attack("40 unread exports", unread_exports, "200 429"),
    attack("8 reports of 40 MB of text", reports, "200 429"),
    attack("286 watchers", watchers, "200"),
    attack("8 slow uploads", slow_uploads, "200 408 429 closed"),
    attack("4 unread answers", unread_answers, "200"),
)
