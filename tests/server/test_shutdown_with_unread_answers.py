"""A server with unread answers stops within its grace period and without a traceback."""

import os
import socket
import time
from pathlib import Path

import pytest

from app.store.run_store import RunStore
from tests.support.servers import server_process


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/runs/gru/export", "/samples?model=gru", "/report?model=gru"])
def test_unread_answer_ends_at_shutdown_without_a_traceback(trained: RunStore, tmp_path: Path, path: str):
    line = b'{"step": %d, "kind": "sample", "text": "%s"}\n'
    samples = (line % (step, os.urandom(200_000).hex().encode()) for step in range(30))
    trained.get("gru").samples_path.write_bytes(b"".join(samples))
    log = tmp_path / "log"
    with socket.socket() as connection:
        with server_process(trained.root, log=log, grace_seconds=1) as client:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect((client.base_url.host, client.base_url.port))
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
            time.sleep(1.0)  # the answer is being prepared or partly sent
        assert client.process.returncode == 0  # type: ignore[attr-defined]
    text = log.read_text(encoding="utf-8")
    assert "Traceback" not in text, text


@pytest.mark.slow
def test_incomplete_upload_does_not_delay_a_stop(trained_root: Path):
    """Its client may take `read_seconds`, and more for a long body, to send the rest."""
    head = b"POST /runs?name=mine HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 9000\r\n"
    with socket.socket() as connection:
        with server_process(trained_root, grace_seconds=0, read_seconds=600) as client:
            connection.connect((client.base_url.host, client.base_url.port))
            connection.sendall(head + b"expect: 100-continue\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            stopped = time.monotonic()
        assert time.monotonic() - stopped < 10
        assert client.process.returncode == 0  # type: ignore[attr-defined]
