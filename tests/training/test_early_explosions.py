"""An exploding loss is detected in the first updates, in the last ones and in short runs."""

import math

import numpy as np
import pytest

from app.store.run_store import RunStore
from app.training.trainer import train_run
from app.training.worker import Worker
from model.errors import DivergedError
from model.guards import BLOCK, HeldOutGuard, LossGuard
from model.training import Training
from tests.support.runs import gru_like, small_text

EVEN = np.array([3.0])  # nats per character that the frequencies of the characters alone give


def note(guard: LossGuard, losses: list[float], begin: int = 0) -> None:
    for step, loss in enumerate(losses, begin):
        guard.note(step, loss)


def test_explosion_in_the_first_block_is_detected():
    with pytest.raises(DivergedError, match="at step 99"):
        note(LossGuard(EVEN), [3.5] * 10 + [48.0] * 90)


def test_slow_start_is_not_an_explosion():
    note(LossGuard(EVEN), [4.4] * 3 * BLOCK)


def test_overshoot_of_the_first_updates_is_not_an_explosion():
    """AdaGrad at a rate of 0.1 overshoots like this on a book; a run of 20 updates may end during it."""
    guard = LossGuard(EVEN)
    note(guard, [4.1] + [7.2] * 19)
    guard.end(20)


def test_slow_start_on_a_predictable_text_is_not_an_explosion():
    note(LossGuard(np.array([0.1])), [0.69] * BLOCK)


def test_second_block_is_also_compared_with_the_start():
    """The first block may be worse than the start, and must not become the only reference."""
    guard = LossGuard(EVEN)
    note(guard, [3.5] * 50 + [6.5] * 50)
    with pytest.raises(DivergedError, match="at step 199"):
        note(guard, [6.6] * BLOCK, BLOCK)


def test_start_of_the_loss_is_kept_across_a_resume():
    guard, resumed = LossGuard(EVEN), LossGuard(EVEN)
    note(guard, [3.5] * 40)
    resumed.restore(guard.progress())
    with pytest.raises(DivergedError):
        note(resumed, [48.0] * 60, 40)


def test_progress_of_an_earlier_version_keeps_its_rule():
    guard = LossGuard(EVEN)
    guard.restore({"sum": 40 * 3.5, "best": None})
    note(guard, [48.0] * 60, 40)


def test_unfinished_block_is_checked_at_the_end():
    guard = LossGuard(EVEN)
    note(guard, [2.0] * BLOCK + [48.0] * 20)
    with pytest.raises(DivergedError, match=f"at step {BLOCK + 19}"):
        guard.end(BLOCK + 20)


@pytest.mark.parametrize("count", [0, 20])
def test_end_of_a_run_that_learns_is_not_an_explosion(count):
    guard = LossGuard(EVEN)
    note(guard, [2.0] * (BLOCK + count))
    guard.end(BLOCK + count)


@pytest.mark.parametrize("steps", [30, 60, 100, 130])
def test_exploding_run_is_rolled_back_or_fails(tmp_path, steps):
    config = gru_like(learning_rate=10.0, clip="none", weight_decay=0.3, steps=steps)
    store = RunStore(tmp_path)
    run = store.create("run", config, small_text(), "small.txt")
    Worker(store, lambda: False).train(run)
    status = run.status
    assert status.rollbacks
    if status.state == "finished":
        assert (status.loss or math.inf) < 4.0
    else:
        assert "exploded" in (status.reason or "")


def test_explosion_is_not_reported_as_overfitting(tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "roll_back", None)
    monkeypatch.setattr("model.guards.BLOCK", 10_000)
    monkeypatch.setattr("model.guards.LossGuard.end", lambda guard, step: None)
    config = gru_like(learning_rate=10.0, clip="none", weight_decay=0.3)
    run = RunStore(tmp_path).create("run", config, small_text(), "small.txt")
    assert train_run(run, lambda: False)
    assert (run.status.loss or 0.0) > 4.0
    assert run.status.warnings == []


def test_held_out_loss_rising_with_training_is_not_overfitting():
    guard = HeldOutGuard(10)
    for step, held_out, smooth in [(0, 3.5, None), (10, 40.0, 30.0), (20, 48.0, 40.0), (30, 48.0, 46.0)]:
        guard.note(step, held_out, smooth)
    assert not guard.overfitting


def test_overfitting_from_the_first_update_is_detected():
    guard = HeldOutGuard(10)
    for step, held_out, smooth in [(0, 3.5, None), (10, 3.6, 3.0), (20, 3.7, 2.5), (30, 3.8, 2.0)]:
        guard.note(step, held_out, smooth)
    assert guard.overfitting
