"""A checkpoint that is kept for a shared link stays available while training goes on, up to a limit."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from app.engine.models import ModelStore
from app.errors import ModelNotFoundError
from app.store import kept
from app.store.checkpoints import find_checkpoint
from app.store.kept import keep
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Budget, size_of
from app.training.trainer import Cadence, train_run
from model.checkpoint import load
from tests.support.runs import gru_like, small_text

ASKED = {"length": 30, "seed": 5, "prompt": "the "}


def stop_at(step: int) -> Callable[[], bool]:
    steps = itertools.count()
    return lambda: next(steps) >= step


def train(run: Run, should_stop: Callable[[], bool] = lambda: False) -> None:
    train_run(run, should_stop, cadence=Cadence(checkpoint_seconds=1000.0, keep=1))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run stopped at step 30, a step that training does not retain on its own."""
    config = gru_like(sample_every=50, checkpoint_every=500)
    run = RunStore(tmp_path / "checkpoints").create("run", config, small_text(), "small.txt")
    train(run, stop_at(30))
    return run


def unlimited(run: Run) -> Budget:
    return Budget(RunStore(run.path.parent), 0)


def test_step_that_is_not_kept_is_removed_and_the_nearest_named(run: Run):
    train(run)
    with pytest.raises(ModelNotFoundError, match="the nearest to 30 is run@50"):
        find_checkpoint(run, 30)


def test_kept_checkpoint_writes_the_same_text_after_training(run: Run, serving):
    client = serving(run.path.parent)
    newest = client.get("/runs/run").json()["newest"]["step"]
    assert newest == 30
    before = client.post("/generate", json={"model": "run@30", **ASKED}).json()
    answer = client.post("/runs/run/keep", json={"step": 30})
    assert (answer.status_code, answer.json()) == (200, {"model": "run@30", "kept": 1, "limit": 16})
    train(run)
    assert not run.checkpoint_path(30).exists()
    other = serving(run.path.parent)
    after = other.post("/generate", json={"model": "run@30", **ASKED}).json()
    assert (after["text"], after["digest"]) == (before["text"], before["digest"])
    assert 30 in other.get("/runs/run").json()["checkpoints"]
    assert other.get("/runs/run/export", params={"step": 30}).status_code == 200


def test_kept_checkpoint_is_not_resumed_from_or_removed(run: Run):
    keep(run, 30, unlimited(run))
    run.checkpoint_path(30).unlink()
    assert max(run.checkpoints()) == 0  # training continues from here
    train(run)
    assert run.status.state == "finished"
    assert load(run.kept_path(30)).step == 30


def test_kept_checkpoint_is_preferred_to_a_new_one_of_its_step(run: Run):
    keep(run, 30, unlimited(run))
    run.checkpoint_path(30).unlink()
    run.checkpoint_path(0).rename(run.checkpoint_path(30))
    assert find_checkpoint(run, 30).path == run.kept_path(30)


def test_unknown_step_and_run_cannot_be_kept(run: Run, serving):
    client = serving(run.path.parent)
    assert client.post("/runs/run/keep", json={"step": 29}).status_code == 404
    assert client.post("/runs/other/keep", json={"step": 30}).status_code == 404
    for wrong in ({"step": -1}, {"step": "30"}, {}, {"step": 30, "more": 1}):
        assert client.post("/runs/run/keep", json=wrong).status_code == 422
    assert run.kept() == {}


def test_best_checkpoint_is_kept_by_its_step(run: Run):
    best = run.latest().best.step
    run.checkpoint_path(best).unlink(missing_ok=True)
    keep(run, best, unlimited(run))
    run.best_path(best).unlink()
    assert ModelStore(RunStore(run.path.parent)).get(f"run@{best}").step == best


def test_earliest_kept_checkpoint_is_dropped_over_the_limit(run: Run, monkeypatch):
    monkeypatch.setattr(kept, "MAX_KEPT", 2)
    budget = unlimited(run)
    assert [keep(run, 30, budget) for _ in range(3)] == [1, 1, 1]
    for step in (31, 32):
        run.checkpoint_path(step).write_bytes(run.checkpoint_path(30).read_bytes())
        keep(run, step, budget)
    assert list(run.kept()) == [31, 32]
    assert keep(run, 0, budget) == 2
    assert list(run.kept()) == [0, 32]


def test_kept_checkpoint_is_copied_without_hard_links(run: Run, monkeypatch):
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError("no second names here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    keep(run, 30, unlimited(run))
    assert run.kept_path(30).read_bytes() == run.checkpoint_path(30).read_bytes()
    assert not list(run.path.glob(".tmp-*"))


def test_kept_checkpoints_are_the_last_to_be_removed(run: Run):
    keep(run, 0, unlimited(run))
    store = RunStore(run.path.parent)
    size = run.checkpoint_path(0).stat().st_size
    Budget(store, size_of(store.root)).make_room(size)
    assert (run.checkpoint_path(0).exists(), run.kept_path(0).exists()) == (False, True)
    Budget(store, size_of(store.root)).make_room(size)
    assert not run.kept_path(0).exists()
