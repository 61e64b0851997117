"""Signals to the real server process, and a process without standard streams."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from app.signals import on_signals
from app.store.run_store import RunStore
from tests.support.runs import LONGEST_WAIT, wait_until
from tests.support.servers import server_process

LONG = {"max_length": 3_000_000, "grace_seconds": 60, "deadline_seconds": 60}


def stream_begun(client: httpx.Client) -> tuple[threading.Thread, list[str]]:
    """A long stream that has started in a thread, and the lines that it has received."""
    lines: list[str] = []

    def read() -> None:
        try:
            with client.stream("POST", "/generate", json={"length": 3_000_000, "stream": True}) as answer:
                lines.extend(answer.iter_lines())
        except httpx.TransportError:
            lines.append("connection lost")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    wait_until(lambda: "num_requests_running 1.0" in client.get("/metrics").text, "the text is written")
    return thread, lines


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signalled_server_finishes_its_texts(trained: RunStore, number: int):
    with server_process(trained.root, grace_seconds=30, max_length=200_000) as client:
        found: list[httpx.Response] = []
        body = {"length": 100_000, "model": "gru"}
        ask = threading.Thread(target=lambda: found.append(client.post("/generate", json=body)))
        ask.start()
        wait_until(lambda: "num_requests_running 1.0" in client.get("/metrics").text, "the text is written")
        client.process.send_signal(number)
        ask.join(LONGEST_WAIT)
        assert found[0].status_code == 200
        assert len(found[0].json()["text"]) == 100_000
        assert client.process.wait(LONGEST_WAIT) == 0


@pytest.mark.slow
def test_second_interrupt_ends_the_server_immediately(trained: RunStore, tmp_path: Path):
    log = tmp_path / "log"
    with server_process(trained.root, log=log, **LONG) as client:
        thread, lines = stream_begun(client)
        client.process.send_signal(signal.SIGINT)
        wait_until(lambda: client.process.poll() is None and draining(client), "the server is draining")
        began = time.monotonic()
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(LONGEST_WAIT) == 0
        assert time.monotonic() - began < 20, "it waited for the end of the grace period"
        thread.join(LONGEST_WAIT)
        assert "event: error" in lines or "connection lost" in lines
        assert "Traceback" not in log.read_text()


def draining(client: httpx.Client) -> bool:
    """Whether the server refuses new requests or connections."""
    try:
        return httpx.get(client.base_url, timeout=LONGEST_WAIT).status_code == 503
    except httpx.TransportError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-", "2>/dev/full"])
def test_server_runs_without_standard_streams(tmp_path: Path, trained: RunStore, closed: str):
    program = "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
    port = free_port()
    command = f'exec "$0" -P -c "$1" serve --no-worker --port {port} --store "$2" {closed}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable, program, str(trained.root)], cwd=tmp_path
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONGEST_WAIT) as client:
            wait_until(lambda: process.poll() is not None or answers(client), "the server answers")
            assert process.poll() is None, f"the server ended with {process.poll()}"
            descriptors = Path(f"/proc/{process.pid}/fd")
            assert all("socket" not in os.readlink(descriptors / str(number)) for number in (0, 1, 2))
    finally:
        process.terminate()
        assert process.wait(LONGEST_WAIT) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_signal_handlers_are_restored_after_the_block():
    seen: list[int] = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with on_signals(seen.append):
        signal.raise_signal(signal.SIGHUP)
    assert seen == [signal.SIGHUP]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_ignored_hangup_stays_ignored():
    """`nohup charloom serve` keeps running after its terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen: list[int] = []
    try:
        with on_signals(seen.append):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == []
