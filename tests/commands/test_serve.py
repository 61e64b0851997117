"""`charloom serve` starts and stops the real server and the real worker together."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from app.cli import main
from app.commands.serve import serve, url_of, warn_if_open
from app.commands.supervisor import Supervisor
from app.server.process import CONNECTIONS, RESERVED
from app.settings import Settings, load_settings
from app.store.run_store import RunStore
from tests.support.runs import LONGEST_WAIT, small_text, wait_until


def child(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_dead_child_process_is_restarted(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr("app.commands.supervisor.FIRST_PAUSE", 0.001)
    log = tmp_path / "log"
    supervisor = Supervisor(
        child(f"open({str(log)!r}, 'a').write('x'); raise SystemExit(3)"), dict(os.environ)
    )
    supervisor.start()
    wait_until(lambda: log.exists() and len(log.read_text()) >= 3, "it is started three times")
    supervisor.stop()
    assert "the worker exited with code 3" in caplog.text
    assert not any(thread.name == "supervisor" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://localhost:8000"),
        ("::", "http://localhost:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_address_to_open_is_one_that_a_browser_reaches(host: str, expected: str):
    assert url_of(host, 8000) == expected


@pytest.mark.parametrize(
    ("on_sigterm", "patience", "code"),
    [("lambda *_: sys.exit(0)", LONGEST_WAIT, 0), ("signal.SIG_IGN", 0.1, -signal.SIGKILL)],
)
def test_child_process_is_terminated_and_killed_if_it_hangs(
    tmp_path: Path, monkeypatch, on_sigterm: str, patience: float, code: int
):
    monkeypatch.setattr("app.commands.supervisor.LONGEST_STOP", patience)
    ready = tmp_path / "ready"
    program = f"import signal, sys, time; signal.signal(signal.SIGTERM, {on_sigterm}); "
    supervisor = Supervisor(child(program + f"open({str(ready)!r}, 'w'); time.sleep(600)"), dict(os.environ))
    supervisor.start()
    wait_until(ready.exists, "the child runs")
    supervisor.stop()
    assert supervisor.process is not None
    assert supervisor.process.wait(LONGEST_WAIT) == code


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [
        ("0.0.0.0", "", True),
        ("::", "", True),
        ("192.0.2.1", "", True),
        ("0.0.0.0", "ann:s3cret", False),
        ("127.0.0.1", "", False),
        ("::1", "", False),
    ],
)
def test_open_server_without_keys_is_warned_about(caplog, host: str, keys: str, warned: bool):
    warn_if_open(host, Settings(api_keys=keys))
    assert (f"anyone who reaches {host} can train, read and delete" in caplog.text) == warned


def stop_immediately(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What `serve` runs in place of a server; it ends immediately."""
    server = SimpleNamespace(run=stop_immediately)
    monkeypatch.setenv("CHARLOOM_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("app.commands.serve.configure_logging", lambda settings: None)
    monkeypatch.setattr("app.commands.serve.build_server", lambda _: server)
    return server


@pytest.mark.parametrize(("host", "open_at"), [("", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")])
@pytest.mark.usefixtures("stopped")
def test_empty_host_is_loopback_and_every_host_is_checked(monkeypatch, host, open_at):
    """An empty variable is what compose makes of one that is not set."""
    hosts = []
    monkeypatch.setenv("CHARLOOM_HOST", host)
    monkeypatch.setattr("app.commands.serve.warn_if_open", lambda host, settings: hosts.append(host))
    serve(load_settings(port=0), with_worker=False)
    assert hosts == [open_at]


def test_limit_of_descriptors_is_raised_before_the_server_is_built(stopped, monkeypatch):
    """The server derives its maximum number of connections from the limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = []

    def build(_: Settings) -> SimpleNamespace:
        found.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        return stopped

    monkeypatch.setattr("app.commands.serve.build_server", build)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
    try:
        serve(load_settings(port=0), with_worker=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found == [min(CONNECTIONS + RESERVED, before[1])]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_serve_starts_and_stops_worker_and_server(tmp_path: Path, number: int):
    (tmp_path / "text.txt").write_text(small_text(), "utf-8")
    log, store = tmp_path / "log", RunStore(tmp_path / "checkpoints")
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--port", "0", "--corpus", "text.txt"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHARLOOM_")}
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stderr=stderr, cwd=tmp_path, env=environment) as server,
    ):
        try:
            wait_until(lambda: address(log), "the server logs its address")
            wait_until(lambda: ready(address(log)), "the server has a model")
            request = {"prompt": "the", "length": 10}
            answer = httpx.post(f"{address(log)}/generate", json=request, timeout=LONGEST_WAIT)
            assert answer.status_code == 200
            classic = store.get("classic")
            wait_until(lambda: classic.status.step > 0, "the worker trains")
        finally:
            server.send_signal(number)
            code = server.wait(LONGEST_WAIT)
    if number == signal.SIGKILL:
        # the server could not stop its worker, which must stop on its own
        assert code == -signal.SIGKILL
        wait_until(lambda: not store.leases.held(), "the worker has ended")
    else:
        assert code == 0
        assert not store.leases.held()
    assert classic.status.state == "queued"
    assert "Traceback" not in log.read_text()
    if number == signal.SIGINT:
        assert "Open http://127.0.0.1" in log.read_text()
        assert re.search(
            r"classic is saved at update [\d,]+ of [\d,]+\.\nStopped\. The same", log.read_text()
        )


def address(log: Path) -> str:
    match = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
    return match[0] if match else ""


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=LONGEST_WAIT).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_serve_answers_with_the_model_of_its_option(trained: RunStore, tmp_path: Path):
    log = tmp_path / "log"
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--no-worker", "--port", "0"]
    command += ["--store", str(trained.root), "--model", "classic@20"]
    with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr, cwd=tmp_path) as server:
        try:
            wait_until(lambda: address(log), "the server says where it is")
            wait_until(lambda: ready(address(log)), "the server has a model")
            answer = httpx.post(f"{address(log)}/generate", json={"length": 3}, timeout=LONGEST_WAIT)
            assert answer.json()["model"] == "classic@20"
        finally:
            server.terminate()
            server.wait(LONGEST_WAIT)


def test_serve_refuses_an_invalid_model(trained: RunStore, capsys):
    command = ["serve", "--no-worker", "--port", "0", "--store", str(trained.root)]
    assert main([*command, "--model", "gru@newest"]) == 2
    assert "model (CHARLOOM_MODEL) is not usable" in capsys.readouterr().err
