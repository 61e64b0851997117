"""`charloom train` with runs that are paused, stopped, resumed, deleted or queued elsewhere."""

import io
import os
import shutil
from pathlib import Path

import pytest

from app.cli import main
from app.commands.progress import LineDisplay
from app.intake.new_runs import new_run
from app.store.capacity import whole_cores
from app.store.control import ask
from app.store.files import Source
from app.store.records import Status
from app.store.run_store import RunStore
from app.store.space import Budget, Limits
from model.config import PRESETS
from tests.support.runs import held_by_another, small_text

FINISHED = Status(state="finished")
COMMAND = [
    "train",
    "text.txt",
    *["--hidden", "8", "--streams", "4", "--shards", "1", "--sequence-length", "10"],
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHARLOOM_STORE", raising=False)
    (tmp_path / "text.txt").write_text(small_text(), "utf-8")
    return RunStore("checkpoints")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("asked", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_train_of_a_paused_run_ends_with_the_command_to_resume(store, monkeypatch, capsys, asked, state):
    def ask_while_it_trains(self: LineDisplay, status: Status) -> None:
        if status.state == "training" and status.step:
            ask(store, self.run, asked, None)

    with monkeypatch.context() as patch:
        patch.setattr(LineDisplay, "show", ask_while_it_trains)
        assert main([*COMMAND, "--steps", "100000"]) == 2
    error = capsys.readouterr().err
    assert f"run text is {state}" in error
    assert "charloom runs resume text" in error
    before = {path.name: path.stat().st_mtime_ns for path in store.get("text").path.iterdir()}
    assert main([*COMMAND, "--steps", "100000"]) == 2
    assert f"run text is {state}" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in store.get("text").path.iterdir()} == before


@pytest.mark.slow
def test_train_continues_a_resumed_run(store, capsys, monkeypatch):
    def pause(self: LineDisplay, status: Status) -> None:
        if status.state == "training" and status.step == 0:
            ask(store, self.run, "pause", None)

    with monkeypatch.context() as patch:
        patch.setattr(LineDisplay, "show", pause)
        assert main([*COMMAND, "--steps", "30"]) == 2
    assert main(["runs", "resume", "text"]) == 0
    assert main([*COMMAND, "--steps", "30"]) == 0
    assert store.get("text").status.state == "finished"


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_train_of_a_deleted_run_reports_the_deletion(store, monkeypatch, capsys):
    def remove(self: LineDisplay, status: Status) -> None:
        if status.state == "training" and status.step:
            shutil.rmtree(self.run.path)

    monkeypatch.setattr(LineDisplay, "show", remove)
    assert main([*COMMAND, "--steps", "100000"]) == 2
    assert "no run named 'text'" in capsys.readouterr().err


@pytest.mark.parametrize("length", [4000, 30_000])
def test_train_and_an_upload_choose_the_same_settings(store, length, monkeypatch):
    text = small_text(length)
    Path("text.txt").write_text(text, "utf-8")
    monkeypatch.setattr("app.commands.train.follow", lambda store, run, *_: run.write_status(FINISHED))
    assert main(["train", "text.txt", "--steps", "3"]) == 0
    limits = Limits(1_000_000, 10, Budget(store, 0))
    made = new_run(store, {"steps": 3}, [Source("text.txt", io.BytesIO(text.encode()))], limits)
    assert store.get("text").config == made.run.config


def test_train_next_to_a_busy_worker_plans_for_the_queue(store, monkeypatch, capsys):
    store.create("first", PRESETS["gru"].replace(minutes=5.0), small_text(), "first.txt")
    next_to_a_worker = set()

    def measure(*_: object, shared: bool) -> float:
        next_to_a_worker.add(shared)
        return 40_000.0

    monkeypatch.setattr("app.commands.train.measure", measure)
    monkeypatch.setattr("app.commands.train.follow", lambda store, run, *_: run.write_status(FINISHED))
    with held_by_another(store, "first"):
        assert main(["train", "text.txt", "--minutes", "1", "--name", "second"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "The worker of this store first trains another run for about 5.0 minutes." in output
    assert next_to_a_worker == {True}
    assert main(["train", "text.txt", "--minutes", "2", "--name", "third"]) == 0
    assert "first trains" not in capsys.readouterr().out


def test_train_plans_with_the_cores_of_its_container(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("app.commands.train.measure", lambda *_, **__: 40_000.0)
    monkeypatch.setattr("app.commands.train.follow", lambda store, run, *_: run.write_status(FINISHED))
    machine = tmp_path / "machine"
    (machine / "proc/self").mkdir(parents=True)
    (machine / "proc/self/cgroup").write_text("0::/\n")
    (machine / "sys/fs/cgroup").mkdir(parents=True)
    monkeypatch.setattr("app.commands.train.whole_cores", lambda: whole_cores(machine))
    for quota, networks in (("max", "networks side by side"), ("150000", "One network of")):
        (machine / "sys/fs/cgroup/cpu.max").write_text(f"{quota} 100000\n")
        assert main(["train", "text.txt", "--minutes", "1", "--name", f"quota-{quota}"]) == 0
        assert networks in " ".join(capsys.readouterr().out.split())
