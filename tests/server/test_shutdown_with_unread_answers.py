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
