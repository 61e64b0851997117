"""`charloom doctor`: every fault that it checks for is found, and reported with advice."""

import contextlib
import dataclasses
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from app.cli import main
from app.commands import doctor
from app.commands.doctor import Diagnosis, examine
from app.main import build_server
from app.server.process import listen
from app.settings import Settings
from app.store.capacity import kernel
from app.store.run_store import RunStore
from tests.support.disks import mounted, remount
from tests.support.runs import LONGEST_WAIT, wait_until
from tests.support.servers import server_process


def findings(store: Path, **changes: object) -> dict[str, Diagnosis]:
    return {finding.name: finding for finding in examine(Settings(store=store, port=0, **changes))}


def test_healthy_store_is_reported_without_faults(trained_root, capsys):
    found = findings(trained_root)
    assert {finding.state for finding in found.values()} == {"ok"}, found
    assert found["checkpoints"].message == "gru@60 would be served"
    assert f"({kernel()})" in found["blas"].message
    assert "correct for all" in found["gradients"].message
    assert main(["doctor", "--store", str(trained_root), "--port", "0"]) == 0
    assert capsys.readouterr().out.count("ok   ") == len(found) == 11


def test_every_fault_is_reported_with_advice(tmp_path):
    for finding in findings(tmp_path / "nothing" / "here").values():
        assert finding.state == "ok" or finding.advice
    assert findings(tmp_path / "nothing")["store"].advice.startswith("start `charloom serve`")


def test_bad_newest_checkpoint_is_reported(trained: RunStore, capsys):
    trained.get("gru").checkpoint_path(60).write_bytes(b"torn")
    found = findings(trained.root)["checkpoints"]
    assert found.state == "fault"
    assert "step-000000060.safetensors of run 'gru' is not a safetensors file" in found.message
    assert main(["doctor", "--store", str(trained.root), "--port", "0"]) == 1
    assert "FAIL checkpoints" in capsys.readouterr().out


def test_failed_run_is_reported(trained: RunStore):
    run = trained.get("classic")
    run.write_status(run.status.model_copy(update={"state": "failed", "reason": "the text is too short"}))
    found = findings(trained.root)["checkpoints"]
    assert (found.state, found.message) == ("warning", "run 'classic' failed: the text is too short")


def test_state_of_the_worker_is_reported(trained: RunStore):
    run = trained.get("gru")
    run.write_status(run.status.model_copy(update={"state": "queued"}))
    assert findings(trained.root)["worker"].message == "none is training; waiting: gru"
    here = {"state": "training", "host": socket.gethostname(), "process": os.getpid()}
    with trained.holding("gru") as held:
        held.write_status(run.status.model_copy(update=here | {"heartbeat": time.time()}))
        expected = f"gru is trained by process {os.getpid()} on {socket.gethostname()}"
        assert findings(trained.root)["worker"].message == expected
        held.write_status(run.status.model_copy(update=here | {"heartbeat": 1.0}))
        assert findings(trained.root)["worker"].state == "fault"
    assert findings(trained.root)["worker"].message == "none is training; waiting: gru"


def test_workers_of_other_hosts_are_reported_and_not_judged(trained: RunStore, monkeypatch):
    told = []
    with contextlib.ExitStack() as stack:
        for name, host in (("classic", "one"), ("gru", "two")):
            monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
            held = stack.enter_context(trained.holding(name))
            silent = {"state": "training", "host": host, "process": os.getpid(), "heartbeat": 1.0}
            held.write_status(held.status.model_copy(update=silent))
            told.append(f"{name} is trained by process {os.getpid()} on {host}")
        monkeypatch.setattr(socket, "gethostname", lambda: "here")
        found = findings(trained.root)["worker"]
    assert (found.state, found.message) == ("ok", "; ".join(told))


@pytest.mark.slow
def test_port_in_use_is_a_fault(trained_root):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = doctor.port(Settings(store=trained_root, port=taken.getsockname()[1]))
    assert found.state == "fault"
    assert "Address already in use" in found.message
    with server_process(trained_root) as client:
        found = doctor.port(Settings(store=trained_root, port=client.base_url.port))
    assert (found.state, "a server answers" in found.message) == ("ok", True)


@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "[::]", "localhost"])
def test_port_is_tested_on_the_address_that_serve_listens_on(trained_root, host):
    [taken] = listen(host, 0)
    with taken:
        found = doctor.port(Settings(store=trained_root, host=host, port=taken.getsockname()[1]))
    assert (found.state, "Address already in use" in found.message) == ("fault", True)
    assert doctor.port(Settings(store=trained_root, host=host, port=0)).state == "ok"


def test_running_server_on_ipv6_is_recognised(trained_root):
    settings = Settings(store=trained_root, host="[::1]", port=0, grace_seconds=0)
    server = build_server(settings)
    [listener] = listen(settings.host, 0)
    with listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, "the server answers")
            found = doctor.port(settings.model_copy(update={"port": listener.getsockname()[1]}))
        finally:
            server.should_exit = True
            thread.join(LONGEST_WAIT)
    assert (found.state, "a server answers" in found.message) == ("ok", True)


def test_small_or_read_only_disk_is_reported(trained_root, tmp_path):
    with mounted(tmp_path / "small") as disk:
        shutil.copytree(trained_root, disk / "checkpoints")
        assert findings(disk / "checkpoints")["disk"].state == "fault"
        remount(disk, "ro")
        found = findings(disk / "checkpoints")["store"]
        assert (found.state, "read-only" in found.message) == ("warning", True)


def test_store_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    assert findings(tmp_path / "file")["store"].state == "fault"


def test_old_or_missing_versions_are_reported(trained_root, monkeypatch):
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["numpy>=99", "nonesuch>=1", 'other; extra == "dev"']
    )
    found = findings(trained_root)["versions"]
    assert found.state == "fault"
    assert "needs >=99; nonesuch nothing, needs >=1" in found.message


@pytest.mark.parametrize(("name", "wrong"), [("gradients", "check"), ("generation", "generate")])
def test_wrong_results_are_reported(trained_root, monkeypatch, name, wrong):
    honest, calls = getattr(doctor, wrong), iter(range(100))

    def check(*arguments: object, **options: object) -> object:
        for result in honest(*arguments, **options):
            yield dataclasses.replace(result, relative_error=1.0)

    def generate(*arguments: object, **options: object) -> object:
        return honest(*arguments, **options | {"seed": next(calls)})

    monkeypatch.setattr(doctor, wrong, {"check": check, "generate": generate}[wrong])
    assert findings(trained_root)[name].state == "fault"


def test_check_that_raises_is_a_fault_and_the_others_continue(trained_root, monkeypatch):
    def broken(settings: Settings) -> Diagnosis:
        raise OSError("no disk at all")

    monkeypatch.setattr(doctor.shutil, "disk_usage", broken)
    found = findings(trained_root)
    assert (found["disk"].state, found["disk"].message) == ("fault", "OSError: no disk at all")
    assert len(found) == 11


def test_unknown_variable_is_a_warning(trained_root, monkeypatch):
    assert findings(trained_root)["variables"].state == "ok"
    monkeypatch.setenv("CHARLOOM_CHECKPOINTS", "/data")
    found = findings(trained_root)["variables"]
    assert (found.state, "did you mean CHARLOOM_STORE?" in found.message) == ("warning", True)
