"""Reading a loss curve while it grows, and thinning it."""

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.errors import RunFileError
from app.store import history
from app.store import loss_curves as curves
from app.store.loss_curves import Curve, Curves, extremes
from app.store.run import Run
from app.store.run_store import RunStore
from tests.support.curves import long_curve, record
from tests.support.runs import classic_like, small_text


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return RunStore(tmp_path).create("new", classic_like(), small_text(), "small.txt")


@pytest.fixture
def reader(run: Run, monkeypatch: pytest.MonkeyPatch) -> Curves:
    """Reads the file on every call."""
    monkeypatch.setattr(curves, "FRESH_SECONDS", -1.0)
    return Curves()


def steps(curve: Curve) -> list[int]:
    return [point["step"] for point in curve.points]


def test_run_without_history_has_no_points(reader: Curves, run: Run):
    curve = reader.get(run)
    assert (curve.points, curve.checkpoints, curve.best, curve.baselines) == ([], [], None, {})


def test_each_appended_line_is_read_once(reader: Curves, run: Run, monkeypatch):
    read: list[bytes] = []
    decode = history.POINTS.decode
    monkeypatch.setattr(history.POINTS, "decode", lambda data: (read.append(data), decode(data))[1])
    history.append(run.history_path, [record(0), record(1)])
    assert steps(reader.get(run)) == [0, 1]
    history.append(run.history_path, [record(2)])
    assert steps(reader.get(run)) == [0, 1, 2]
    assert [data.count(b"\n") for data in read] == [2, 1]


def test_end_of_a_run_is_read_with_its_last_points(run: Run, monkeypatch):
    monkeypatch.setattr(curves, "FRESH_SECONDS", 1000.0)
    reader = Curves()
    history.append(run.history_path, [record(0)])
    assert steps(reader.get(run)) == [0]
    history.append(run.history_path, [record(1)])
    assert steps(reader.get(run)) == [0]  # still cached
    run.write_status(run.status.model_copy(update={"state": "finished"}))
    assert steps(reader.get(run)) == [0, 1]


def test_incomplete_line_is_read_once_complete(reader: Curves, run: Run):
    whole = history.encode(record(0)) + history.encode(record(1))
    run.history_path.write_bytes(whole[:-10])
    assert steps(reader.get(run)) == [0]
    with run.history_path.open("ab") as file:
        file.write(whole[-10:])
    assert steps(reader.get(run)) == [0, 1]


def test_curve_truncated_by_a_resumed_run_is_read_again(reader: Curves, run: Run):
    history.append(run.history_path, [record(step, loss=1.0) for step in range(10)])
    assert steps(reader.get(run))[-1] == 9
    replacement = run.path / "replacement"
    history.append(replacement, [record(step, loss=2.0) for step in range(12)])
    replacement.replace(run.history_path)
    assert {point["loss"] for point in reader.get(run).points} == {2.0}


def test_curve_is_cached_for_a_limited_time(run: Run, monkeypatch):
    monkeypatch.setattr(curves, "FRESH_SECONDS", 1000.0)
    reader = Curves()
    first = reader.get(run)
    history.append(run.history_path, [record(0)])
    assert reader.get(run) is first
    monkeypatch.setattr(curves, "FRESH_SECONDS", -1.0)
    assert steps(reader.get(run)) == [0]


def test_finished_run_has_baselines_best_and_checkpoints(trained_root):
    store = RunStore(trained_root)
    reader = Curves()
    classic, gru = reader.get(store.get("classic")), reader.get(store.get("gru"))
    assert classic.baselines["uniform"] == pytest.approx(math.log(len(set(small_text()))))
    assert classic.baselines["5-gram"] < classic.baselines["unigram"] < classic.baselines["uniform"]
    assert (classic.sequence_length, gru.sequence_length) == (10, None)
    assert classic.checkpoints[-1] == 60
    latest = store.get("gru").latest()
    assert latest is not None
    assert latest.best is not None
    assert gru.best == (latest.best.step, latest.best.loss)


def test_thinning_keeps_ends_extremes_and_held_out_losses():
    curve = long_curve(100_000)
    thin = curve.thinned(1000)
    assert 500 < len(thin.points) <= 1010
    assert steps(thin) == sorted(set(steps(thin)))
    assert (steps(thin)[0], steps(thin)[-1]) == (0, 99_999)
    losses = [point["loss"] for point in thin.points]
    assert (max(losses), min(losses)) == (9.0, 0.5)
    assert sum(point["validation_loss"] is not None for point in thin.points) >= 100
    assert thin.version == curve.version


def test_few_points_are_all_kept():
    curve = long_curve(10)
    assert curve.thinned(10) is curve
    assert len(curve.thinned(9).points) <= 9


def test_extremes_skip_missing_values():
    values = np.array([np.nan, 1.0, 5.0, np.nan, 2.0, np.nan])
    assert extremes(values, 1) == [0, 1, 2, 5]
    assert extremes(np.full(4, np.nan), 2) == [0, 3]


def test_version_changes_with_points_and_state(reader: Curves, run: Run):
    versions = [reader.get(run).version]
    history.append(run.history_path, [record(0)])
    versions.append(reader.get(run).version)
    run.write_status(run.status.model_copy(update={"state": "paused"}))
    versions.append(reader.get(run).version)
    assert len(set(versions)) == 3


def test_points_of_a_long_run_are_thinned_in_memory(reader: Curves, run: Run, monkeypatch):
    monkeypatch.setattr(curves, "KEPT_POINTS", 50)
    monkeypatch.setattr(curves, "PIECE", 1000)
    history.append(run.history_path, [record(step, loss=9.0 if step == 333 else 1.0) for step in range(1000)])
    curve = reader.get(run)
    assert curve.recorded == 1000
    assert len(curve.points) <= 100 + 10
    assert {0, 333, 999} <= set(steps(curve))


def test_curves_of_deleted_runs_are_released(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "FRESH_SECONDS", -1.0)
    store, reader = RunStore(tmp_path), Curves()
    runs = [store.create(f"run-{number}", classic_like(), small_text(), "small.txt") for number in range(4)]
    for run in runs:
        history.append(run.history_path, [record(step) for step in range(10)])
        reader.get(run)
    shutil.rmtree(runs[0].path)
    reader.get(runs[3])
    assert set(reader._readings) == set(reader._curves) == {run.path for run in runs[1:]}
    monkeypatch.setattr(curves, "HELD_POINTS", 25)
    reader.get(runs[1])
    assert list(reader._readings) == [runs[3].path, runs[1].path]


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_history_that_is_not_a_file_is_reported_as_a_fault(reader: Curves, run: Run, tmp_path, kind: str):
    make = {"folder": Path.mkdir, "link": lambda path: path.symlink_to(tmp_path), "pipe": os.mkfifo}
    make[kind](run.history_path)
    with pytest.raises(RunFileError, match=r"history\.jsonl of run 'new' cannot be read") as raised:
        reader.get(run)
    assert str(tmp_path) not in str(raised.value)
    assert run.files().faults == ("history.jsonl is not a regular file and is ignored: remove it",)


def test_run_recreated_under_the_same_name_has_its_own_curve(reader: Curves, run: Run):
    """Its file may have the inode of the old file and be longer."""
    history.append(run.history_path, [record(step, loss=1.0) for step in range(10)])
    assert len(reader.get(run).points) == 10
    shutil.rmtree(run.path)
    again = RunStore(run.path.parent).create("new", classic_like(), small_text(), "small.txt")
    history.append(again.history_path, [record(step, loss=2.0) for step in range(20)])
    points = reader.get(again).points
    assert [point["loss"] for point in points] == [2.0] * 20
