"""Members of an ensemble are trained apart, each as its own run, and then merged."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import main
from app.errors import ConflictError, RunExistsError
from app.intake.merge import merge_group
from app.intake.new_runs import new_run
from app.store.files import Source
from app.store.groups import members_of, standing_of
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Budget, Limits
from app.training.trainer import train_run
from app.training.worker import Worker
from model.checkpoint import Checkpoint, load
from model.config import RunConfig
from model.errors import ConfigError
from tests.support.runs import LONGEST_WAIT, classic_like, gru_like, small_text, wait_until

TEXT = small_text(3000)
SHORT = {"members": 3, "steps": 20, "sample_every": 0, "best_sample_length": 0}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "checkpoints")


def queue_apart(store: RunStore, config: RunConfig, most: int = 100, **options: Any) -> Run:
    given = {"name": "g", "apart": True} | config.to_dict() | options
    limits = Limits(10**6, most, Budget(store, 0))
    return new_run(store, given, [Source("a.txt", io.BytesIO(TEXT.encode()))], limits).run


def train_all(store: RunStore, *workers: Worker) -> list[str]:
    workers = workers or (Worker(store, lambda: False),)
    order = []
    for turn in range(100):
        run = workers[turn % len(workers)].next_run()
        if run is None:
            break
        order.append(run.name)
        workers[turn % len(workers)].train(run)
    return order


def close(loss: float | None) -> Any:
    return None if loss is None else pytest.approx(loss, rel=1e-6)


def newest(run: Run) -> Checkpoint:
    latest = run.latest()
    assert latest is not None
    return load(run.path / latest.newest.file)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        gru_like(**SHORT, embedding=5, seed=3),
        gru_like(**SHORT, cell="lstm", shards=2, layers=1, embedding=0),
        gru_like(**SHORT, optimizer="muon"),
        classic_like(**SHORT),
    ],
    ids=["gru", "lstm-2-shards", "muon", "classic"],
)
def test_members_trained_apart_match_joint_training_to_the_bit(store, config):
    together = store.create("together", config, TEXT, "a.txt")
    train_run(together, lambda: False)
    group = queue_apart(store, config)
    assert train_all(store, Worker(store, lambda: False), Worker(store, lambda: False))[-1] == "g"
    joint, merged = newest(together), newest(group)
    assert (merged.step, merged.config) == (joint.step, joint.config)
    assert merged.tensors["members"].tobytes() == joint.tensors["members"].tobytes()
    assert merged.parameters.tobytes() == joint.parameters.tobytes()
    assert group.status.validation_loss == close(together.status.validation_loss)
    assert group.status.smooth_loss == pytest.approx(together.status.smooth_loss, abs=1e-12)
    assert group.baselines() == together.baselines()


def test_group_is_merged_after_all_members_are_finished(store):
    group = queue_apart(store, gru_like(**SHORT), priority=5)
    members = members_of(store, group)
    assert [member.name for member in members] == ["g.1", "g.2", "g.3"]
    assert [(one.spec.group, one.config.members, one.control.priority) for one in members] == [
        ("g", 1, 5)
    ] * 3
    assert all(os.path.samefile(one.path / "corpus.txt", group.path / "corpus.txt") for one in members)
    worker = Worker(store, lambda: False)
    for done, member in enumerate(members, 1):
        assert worker.next_run().name == member.name
        assert not worker._outranked(store.get("g.3"))
        worker.train(member)
        assert standing_of(store, group).fraction == pytest.approx(done / 3)
    assert standing_of(store, group).state == "queued"
    worker.train(worker.next_run())
    assert (group.status.state, group.status.step, group.status.fraction) == ("finished", 20, 1.0)
    assert worker.next_run() is None


def test_merge_repeated_after_an_interruption_is_identical(store):
    group = queue_apart(store, gru_like(**SHORT))
    train_all(store)
    before = newest(group).digest
    status = group.status.model_copy(update={"state": "training", "fraction": 0.0})
    group.write_status(status)
    (group.path / "latest.json").unlink()
    train_all(store)
    assert (newest(group).digest, group.status.state, len(group.history())) == (before, "finished", 1)
    merge_group(group, 0)
    assert newest(group).digest == before


def test_group_reports_why_it_cannot_be_merged(store):
    group = queue_apart(store, gru_like(**SHORT))
    first = store.get("g.1")
    first.write_status(first.status.model_copy(update={"state": "failed", "reason": "no text"}))
    status = standing_of(store, group)
    assert (status.state, status.reason) == ("queued", "its member g.1 failed: no text")
    train_all(store)
    assert standing_of(store, group).state == "failed"
    (store.root / "g.1").rename(store.root / "elsewhere")
    status = standing_of(store, group)
    assert status.state == "failed"
    assert "its member g.1 was deleted" in str(status.reason)
    assert train_all(store) == []


def test_group_is_as_far_from_its_end_as_its_slowest_member(store):
    group = queue_apart(store, gru_like(**SHORT))
    # the clocks of their workers are an hour apart
    for name, now, left in (("g.1", 1e9 + 3600, 10.0), ("g.2", 1e9, 600.0), ("g.3", 1e9 - 3600, 20.0)):
        store.get(name).write_status(Status(state="training", step=5, heartbeat=now, expected_end=now + left))
    told = standing_of(store, group)
    assert told.expected_end - told.heartbeat == 600.0
    store.get("g.2").write_status(Status(state="queued"))
    assert standing_of(store, group).expected_end is None


@pytest.mark.parametrize("damage", [b"", b"{}", None], ids=["empty", "other JSON", "pipe"])
def test_damaged_member_is_named_by_its_group_and_hides_no_run(store, serving, damage):
    queue_apart(store, gru_like(**SHORT))
    record = store.root / "g.2" / "run.json"
    record.unlink()
    os.mkfifo(record) if damage is None else record.write_bytes(damage)
    listed = {run["name"]: run for run in serving(store.root).get("/runs").json()["runs"]}
    assert set(listed) == {"g", "g.1", "g.3"}
    assert listed["g"]["state"] == "failed"
    assert "its member g.2 was deleted or cannot be read" in listed["g"]["reason"]


def test_group_that_cannot_be_queued_leaves_nothing(store):
    store.create("g.2", classic_like(), TEXT, "a.txt")
    with pytest.raises(RunExistsError, match=r"'g\.2'"):
        queue_apart(store, gru_like(**SHORT))
    assert [run.name for run in store.list()] == ["g.2"]
    with pytest.raises(ConflictError, match="4 are needed"):
        queue_apart(store, gru_like(**SHORT), most=4)
    with pytest.raises(
        ConfigError, match=r"members must be at least 2 to train members separately. Given: 1"
    ):
        queue_apart(store, gru_like(**SHORT | {"members": 1}))
    with pytest.raises(ConfigError, match=r"apart must be true or false. Given: 'maybe'"):
        queue_apart(store, gru_like(**SHORT), apart="maybe")
    assert [run.name for run in store.list()] == ["g.2"]


def test_request_to_a_group_applies_to_its_members(
    store: RunStore, serving: Callable[..., httpx.Client]
) -> None:
    store.root.mkdir()
    api = serving(store.root)
    settings = gru_like(**SHORT).to_dict()
    made = api.post("/runs", json=settings | {"text": TEXT, "name": "g", "apart": True})
    assert (made.status_code, made.json()["name"]) == (202, "g")

    def states() -> list[str]:
        return [api.get(f"/runs/{name}").json()["state"] for name in ("g", "g.1", "g.2", "g.3")]

    assert states() == ["queued"] * 4
    assert api.patch("/runs/g", json={"action": "pause"}).json()["state"] == "paused"
    assert states() == ["paused"] * 4
    assert train_all(store) == []
    api.patch("/runs/g", json={"action": "resume", "priority": 7})
    assert states() == ["queued"] * 4
    assert store.get("g.2").control.priority == 7
    worker = Worker(store, lambda: False)
    worker.train(store.get("g.1"))
    shown = api.get("/runs/g").json()
    assert (shown["state"], shown["parts"], shown["group"]) == ("queued", ["g.1", "g.2", "g.3"], None)
    assert api.get("/runs/g.2").json()["group"] == "g"
    api.patch("/runs/g", json={"action": "stop"})
    assert states() == ["stopped", "finished", "stopped", "stopped"]
    assert api.delete("/runs/g").status_code == 409
    assert api.delete("/runs/g", params={"force": True}).status_code == 200
    assert api.get("/runs").json()["runs"] == []


def free_worker(store: RunStore) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "app.cli", "worker", "--until-idle"]
    environment = os.environ | {"CHARLOOM_STORE": str(store.root), "CHARLOOM_CORPUS": "none.txt"}
    return subprocess.Popen(command, env=environment, cwd=store.root.parent, stderr=subprocess.DEVNULL)


def is_in_training(run: Run) -> bool:
    latest = run.latest()
    return run.status.state == "training" and latest is not None and latest.newest.step > 0


@pytest.mark.slow
def test_members_match_joint_training_after_a_worker_is_killed(store):
    rarely = dict.fromkeys(("record_every", "validate_every", "checkpoint_every"), 50)
    config = gru_like(members=3, steps=1500, sample_every=0, best_sample_length=0, **rarely)
    together = store.create("together", config, TEXT, "a.txt")
    train_run(together, lambda: False)
    group = queue_apart(store, config)
    with free_worker(store) as first, free_worker(store) as second:
        try:
            members = members_of(store, group)
            wait_until(lambda: sum(map(is_in_training, members)) == 2, "both workers train")
            first.kill()
            first.wait()  # until it is waited for, a process counts as alive
            assert second.wait(LONGEST_WAIT) == 0
        finally:
            first.kill()
            second.kill()
    assert [one.standing.state for one in (group, *members)] == ["finished"] * 4
    assert newest(group).parameters.tobytes() == newest(together).parameters.tobytes()


@pytest.mark.slow
def test_train_command_with_apart_trains_and_merges_all_members(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text(TEXT, "utf-8")
    settings = {"preset": "gru", "hidden": 8, "embedding": 0, "streams": 4, "steps": 10, "members": 2}
    small = [f"--{name}={value}" for name, value in settings.items()]
    assert main(["train", "my.txt", *small, "--apart"]) == 0
    assert "Write with it: charloom generate --model my" in capsys.readouterr().out
    store = RunStore("checkpoints")
    assert {run.name: run.standing.state for run in store.list()} == {
        "my": "finished",
        "my.1": "finished",
        "my.2": "finished",
    }
    assert main(["train", "my.txt", *small, "--apart"]) == 0
    assert len(store.list()) == 3
    assert main(["generate", "--model", "my", "--length", "5"]) == 0
    assert main(["train", "my.txt", *small, "--name", "my"]) == 2
    assert "exists already, trained apart" in capsys.readouterr().err
