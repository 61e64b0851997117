"""A run killed at any moment resumes: its curve and weights are bit-equal to those of an undisturbed run."""

import os
import random
import signal
from pathlib import Path

import pytest

from app.errors import RunFileError
from app.store.run import Run
from app.store.run_store import RunStore
from model.config import RunConfig
from tests.support.kills import Killed, Killer, assert_readable, train
from tests.support.runs import (
    classic_like,
    gru_like,
    outcome,
    size,
    small_text,
    stop,
    wait_until,
    worker_process,
)

SHORT = {"steps": 20, "sample_every": 8, "validate_every": 5, "checkpoint_every": 6}
CONFIGS = {
    "classic": classic_like(**SHORT | {"validate_every": 0}),
    "gru": gru_like(**SHORT),
    "lstm": gru_like(cell="lstm", optimizer="adam", **SHORT),
    "muon": gru_like(optimizer="muon", members=2, shards=2, **SHORT),
}


def new_run(folder: Path, config: RunConfig) -> Run:
    return RunStore(folder).create("run", config, small_text(), "small.txt")


def undisturbed(folder: Path, config: RunConfig) -> Run:
    run = new_run(folder / "undisturbed", config)
    assert train(run)
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stride"), [("classic", 2), ("gru", 3), ("lstm", 10)])
def test_worker_killed_at_every_disk_write_resumes_exactly(
    tmp_path: Path, monkeypatch, name: str, stride: int
):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the page cache survives a killed process
    expected = outcome(undisturbed(tmp_path, CONFIGS[name]))
    for at in range(1, 1000, stride):
        run = new_run(tmp_path / str(at), CONFIGS[name])
        with monkeypatch.context() as patch:
            killer = Killer(patch, at)
            try:
                train(run)
                break
            except Killed:
                pass
        assert_readable(run)
        assert train(run)
        assert outcome(run) == expected, f"killed at change {at}"
    assert killer.changes > 50


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shards"), [("classic", 1), ("gru", 2), ("muon", 1)])
def test_worker_process_killed_at_random_resumes_exactly(tmp_path: Path, name: str, shards: int):
    config = CONFIGS[name].replace(steps=200, sample_every=50, record_every=1, shards=shards)
    expected = outcome(undisturbed(tmp_path, config))
    run = new_run(tmp_path / "killed", config)
    rng = random.Random(name)
    kills = 0
    while run.status.state != "finished" and kills < 20:
        begun = size(run.history_path)
        with worker_process(RunStore(run.path.parent)) as worker:
            more = rng.randrange(100, 20_000)
            wait_until(
                lambda begun=begun, more=more: (
                    size(run.history_path) > begun + more or run.status.state == "finished"
                ),
                "the worker goes on",
            )
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            kills += 1
    assert kills > 2
    assert outcome(run) == expected


@pytest.mark.slow
def test_sigterm_and_sigint_save_the_last_step_and_exit_0(tmp_path: Path):
    config = CONFIGS["classic"].replace(steps=100_000, checkpoint_every=100_000, sample_every=0)
    run = new_run(tmp_path / "store", config)
    last = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        with worker_process(RunStore(run.path.parent)) as worker:
            wait_until(
                lambda last=last: run.history() and run.history()[-1]["step"] > last + 20, "some steps"
            )
            code, log = stop(worker, number)
        assert code == 0, log
        assert "Traceback" not in log
        latest, status = run.latest(), run.status
        assert latest is not None
        assert (status.state, status.step) == ("queued", latest.newest.step)
        assert run.history()[-1]["step"] == latest.newest.step > last
        assert max(run.checkpoints()) == latest.newest.step
        last = latest.newest.step


def half_trained(folder: Path, config: RunConfig) -> Run:
    run = new_run(folder, config)
    steps = iter(range(1000))
    assert not train(run, lambda: next(steps) == 17)
    return run


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped", "foreign"])
def test_damaged_newest_checkpoint_falls_back_to_the_previous(tmp_path: Path, caplog, damage: str):
    expected = outcome(undisturbed(tmp_path, CONFIGS["gru"]))
    run = half_trained(tmp_path / "damaged", CONFIGS["gru"])
    before, newest = list(run.checkpoints().values())[-2:]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(
        {"torn": data[:-100], "empty": b"", "flipped": data, "foreign": b"\x80pickle" * 9}[damage]
    )
    caplog.set_level("INFO")
    assert train(run)
    assert f"run run: checkpoint refused: {newest.name}: " in caplog.text
    assert f"continues from step {int(before.stem[5:])}" in caplog.text
    result = outcome(run)
    assert newest.with_suffix(".refused").exists()
    assert result == expected


@pytest.mark.parametrize("damage", ["empty", "foreign", "missing"])
def test_damaged_best_checkpoint_is_rewritten(tmp_path: Path, damage: str):
    expected = outcome(undisturbed(tmp_path, CONFIGS["gru"]))
    run = half_trained(tmp_path / "damaged", CONFIGS["gru"])
    latest = run.latest()
    assert latest is not None
    assert latest.best is not None
    best = run.path / latest.best.file
    best.unlink()
    if damage != "missing":
        best.write_bytes(run.checkpoint_path(0).read_bytes() if damage == "foreign" else b"")
    assert not train(run, lambda: True)
    assert_readable(run)
    assert train(run)
    assert outcome(run) == expected


def test_checkpoint_of_another_run_is_not_continued(tmp_path: Path, caplog):
    run = half_trained(tmp_path / "one", CONFIGS["gru"])
    other = half_trained(tmp_path / "two", CONFIGS["gru"].replace(seed=1))
    newest = list(run.checkpoints().values())[-1]
    newest.write_bytes(list(other.checkpoints().values())[-1].read_bytes())
    assert train(run)
    assert "belongs to another run" in caplog.text
    assert outcome(run)["newest"] == outcome(undisturbed(tmp_path, CONFIGS["gru"]))["newest"]


def test_run_without_usable_checkpoints_is_not_restarted(tmp_path: Path):
    run = half_trained(tmp_path / "damaged", CONFIGS["gru"])
    curve = run.history()
    checkpoints = run.checkpoints().values()
    for path in checkpoints:
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(
        RunFileError, match=f"none of the {len(checkpoints)} checkpoints of run 'run' can be used"
    ):
        train(run)
    assert run.history() == curve
    assert all(path.exists() for path in checkpoints)


def test_many_stops_and_resumes_do_not_change_the_result(tmp_path: Path):
    expected = outcome(undisturbed(tmp_path, CONFIGS["classic"]))
    run = new_run(tmp_path / "stopped", CONFIGS["classic"])
    for _ in range(30):
        steps = iter((False, True))
        if train(run, lambda steps=steps: next(steps)):
            break
    assert list(run.checkpoints()) == [0, 8, 16, 18, 19, 20]  # the sampled ones and the newest three
    assert outcome(run) == expected
