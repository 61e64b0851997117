import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.healthcheck import HEALTHY, SILENT_SECONDS, UNHEALTHY, USAGE_ERROR, main
from app.store.records import Status


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of a server that is healthy at /healthz only."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 503)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/healthz"
        server.shutdown()
        thread.join()


def test_server_that_answers_is_healthy_even_with_a_proxy_set(url, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert main(["server", url]) == HEALTHY


def test_server_with_an_error_or_no_answer_is_unhealthy(url, capsys):
    assert main(["server", url.replace("healthz", "other")]) == UNHEALTHY
    assert "503" in capsys.readouterr().err
    assert main(["server", url.replace(str(urlsplit(url).port), "9")]) == UNHEALTHY
    assert "refused" in capsys.readouterr().err
    assert main(["server", "no address"]) == UNHEALTHY


@pytest.mark.parametrize(
    ("state", "silence", "code"),
    [
        ("training", 0, HEALTHY),
        ("training", SILENT_SECONDS / 2, HEALTHY),
        ("training", SILENT_SECONDS * 2, UNHEALTHY),
        ("finished", SILENT_SECONDS * 2, HEALTHY),
        ("failed", SILENT_SECONDS * 2, HEALTHY),
    ],
)
def test_worker_is_unhealthy_only_if_its_run_in_training_is_silent(tmp_path, state, silence, code, capsys):
    written(tmp_path, "run", state=state, heartbeat=time.time() - silence)
    assert main(["worker", str(tmp_path)]) == code
    assert ("run run is in training" in capsys.readouterr().err) == (code == UNHEALTHY)


def written(store: Path, name: str, **changes: object) -> None:
    """Write the status and the lease of a run that this process trains, with changes to the status."""
    for folder in (store / name, store / ".leases"):
        folder.mkdir(exist_ok=True)
    (store / ".leases" / f"{name}.lease").touch()
    ours = {"host": socket.gethostname(), "process": os.getpid(), "state": "training", "heartbeat": 1.0}
    Status.model_validate(ours | changes).write(store / name / "status.json")


def test_silent_runs_of_other_workers_leave_this_machine_healthy(tmp_path):
    written(tmp_path, "elsewhere", host="another-machine")
    written(tmp_path, "gone", process=2**22 + 1)
    written(tmp_path, "impossible", process=10**15)
    written(tmp_path, "unheld")
    (tmp_path / ".leases" / "unheld.lease").unlink()
    assert main(["worker", str(tmp_path)]) == HEALTHY
    written(tmp_path, "ours")
    assert main(["worker", str(tmp_path)]) == UNHEALTHY


@pytest.mark.parametrize(
    "damaged", [b"", b"\xff", b"[]", b"{}", b'{"heartbeat": "soon"}', b"[" * 100_000, b'{"heartbeat": NaN}']
)
def test_worker_with_a_damaged_record_is_healthy(tmp_path, damaged):
    assert main(["worker", str(tmp_path)]) == HEALTHY
    written(tmp_path, "run")
    (tmp_path / "run" / "status.json").write_bytes(damaged)
    assert main(["worker", str(tmp_path)]) == HEALTHY


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("other.json", path)])
def test_worker_with_another_kind_of_file_is_healthy(tmp_path, make):
    written(tmp_path, "run")
    (tmp_path / "run" / "status.json").rename(tmp_path / "run" / "other.json")
    make(tmp_path / "run" / "status.json")
    assert main(["worker", str(tmp_path)]) == HEALTHY


def test_missing_arguments_are_a_usage_error(capsys):
    assert main([]) == USAGE_ERROR
    assert "usage" in capsys.readouterr().err
