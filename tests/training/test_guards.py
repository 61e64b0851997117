"""Guards: a run whose loss explodes is rolled back; a rising held-out loss is reported as overfitting."""

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.reports.plots import draw_loss_curve
from app.store.loss_curves import Curves
from app.store.records import CheckpointEntry
from app.store.run import Run
from app.store.run_store import RunStore
from app.training.recovery import is_anchor, kept_anchors, start_or_resume
from app.training.trainer import Cadence, RunWriter, train_run
from app.training.worker import Worker
from model.batches import Window
from model.cells import Array
from model.checkpoint import Checkpoint, load
from model.config import RunConfig
from model.errors import DivergedError
from model.guards import HeldOutGuard, LossGuard
from model.passes import SerialPasses
from model.training import Training
from model.vocabulary import Vocabulary
from tests.support.kills import Killed, Killer, assert_readable, train
from tests.support.runs import classic_like, gru_like, outcome, small_text

FAULT_AT = 27  # after the checkpoints 0, 7, 14 and 21


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.guards.BLOCK", 5)


def new_run(folder: Path, config: RunConfig, text: str | None = None) -> Run:
    return RunStore(folder).create("run", config, text or small_text(), "small.txt")


def fault(monkeypatch: pytest.MonkeyPatch, times: int = 1, loss: float = math.nan) -> None:
    """Make update `FAULT_AT` return `loss` until the learning rate has been halved `times` times."""
    whole = Training.update

    def update(training: Training) -> None:
        if training.step >= FAULT_AT and len(training.rollbacks) < times:

            class Faulty(SerialPasses):
                def run(self, window: Window, state: Array) -> float:
                    super().run(window, state)
                    return loss

            passes, training.passes = training.passes, Faulty(training.members, training.config)
            try:
                whole(training)
            finally:
                training.passes = passes
        else:
            whole(training)

    monkeypatch.setattr(Training, "update", update)


@pytest.mark.parametrize("config", [classic_like(), gru_like()], ids=["classic", "gru"])
@pytest.mark.parametrize(("loss", "noticed"), [(math.nan, 27), (math.inf, 27), (1000.0, 29)])
def test_rollback_restores_the_last_checkpoint_at_half_the_rate(
    tmp_path, monkeypatch, caplog, config, loss, noticed
):
    fault(monkeypatch, loss=loss)
    run = new_run(tmp_path, config)
    assert train(run)
    status, points = run.status, run.history()
    assert (status.state, status.rollbacks) == ("finished", [21])
    assert (
        f"at step {noticed}: rolled back to step 21, with the learning rate divided by 2"
        in status.warnings[0]
    )
    assert status.warnings[0] in caplog.text
    steps = [point["step"] for point in points]
    assert steps == sorted(set(steps))
    rates = {point["step"]: point["learning_rate"] for point in points}
    undisturbed = RunStore(tmp_path).create("undisturbed", config, small_text(), "small.txt")
    monkeypatch.undo()
    assert train(undisturbed)
    for point in undisturbed.history():
        share = 1 if point["step"] <= 21 else 0.5
        assert rates[point["step"]] == share * point["learning_rate"]
    same = [p["loss"] for p in undisturbed.history() if p["step"] <= 21]
    assert [p["loss"] for p in points if p["step"] <= 21] == same


def test_run_that_keeps_exploding_fails_with_the_reason(tmp_path, monkeypatch):
    fault(monkeypatch, times=100)
    store = RunStore(tmp_path)
    run = new_run(tmp_path, classic_like())
    Worker(store, lambda: False).train(run)
    status = run.status
    assert status.state == "failed"
    assert "became nan at step 27, although it was rolled back 5 times" in (status.reason or "")
    assert "smaller learning rate" in (status.reason or "")
    assert_readable(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda checkpoint: checkpoint.progress.pop("random_state"),
        lambda checkpoint: checkpoint.tensors.pop("optimizer.m"),
        lambda checkpoint: setattr(checkpoint, "text_sha256", "on another text"),
    ],
    ids=["no random state", "no optimizer", "another text"],
)
def test_rollback_skips_a_checkpoint_that_cannot_be_resumed(tmp_path, monkeypatch, caplog, change):
    fault(monkeypatch, loss=math.nan)
    run = new_run(tmp_path, classic_like())
    write = RunWriter._write

    def write_changed(writer: RunWriter, checkpoint: Checkpoint, *more: object) -> CheckpointEntry:
        if checkpoint.step == 21 and not writer.training.rollbacks:
            change(checkpoint)
        return write(writer, checkpoint, *more)

    monkeypatch.setattr(RunWriter, "_write", write_changed)
    monkeypatch.setattr(RunWriter, "_prune", lambda writer: None)
    Worker(RunStore(tmp_path), lambda: False).train(run)
    assert run.status.state == "finished", run.status.reason
    assert run.status.rollbacks == [14]
    assert "step-000000021.safetensors" in caplog.text


@pytest.mark.slow
def test_learning_rate_that_is_too_high_is_reduced(tmp_path):
    run = new_run(tmp_path, gru_like(learning_rate=10.0, clip="none", weight_decay=0.3, steps=300))
    assert train(run)
    assert run.status.rollbacks
    assert (run.status.smooth_loss or math.inf) < 3.5


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_worker_killed_during_a_rollback_resumes_exactly(tmp_path, monkeypatch, times):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    fault(monkeypatch, times)
    config = gru_like(steps=34, sample_every=8, validate_every=5)
    undisturbed = new_run(tmp_path / "undisturbed", config)
    assert train(undisturbed)
    expected = outcome(undisturbed)
    assert undisturbed.status.rollbacks == [21] * times
    for at in range(1, 1000, 3):
        run = new_run(tmp_path / str(at), config)
        with monkeypatch.context() as patch:
            try:
                with patch.context() as inner:
                    Killer(inner, at)
                    train(run)
                break
            except Killed:
                pass
        assert_readable(run)
        assert train(run)
        assert outcome(run) == expected, at
        assert run.status.rollbacks == [21] * times
    assert at > 60


def test_rollback_step_does_not_depend_on_the_clock(tmp_path, monkeypatch):
    fault(monkeypatch)
    outcomes = []
    for name, seconds in (("often", 0.0), ("seldom", 1000.0)):
        run = new_run(tmp_path / name, gru_like())
        assert train_run(run, lambda: False, cadence=Cadence(checkpoint_seconds=seconds, keep=1))
        assert run.status.rollbacks == [21]
        outcomes.append(outcome(run))
    assert outcomes[0] == outcomes[1]


def test_rollback_removes_everything_from_later_steps(tmp_path, monkeypatch):
    """This includes a best network of one of these steps."""
    fault(monkeypatch)
    run = new_run(tmp_path, classic_like())
    seen = []

    def look() -> bool:
        if run.status.rollbacks and not seen:
            latest = run.latest()
            seen.append((run.history()[-1]["step"], max(run.checkpoints()), latest.best.step))
            assert_readable(run)
        return bool(seen)

    train(run, look)
    assert seen == [(21, 21, load(run.checkpoint_path(21)).progress["best_step"])]


def test_checkpoint_without_guard_state_can_be_resumed(tmp_path):
    run = new_run(tmp_path, gru_like())
    steps = iter(range(100))
    train(run, lambda: next(steps) == 20)
    checkpoint = load(run.path / run.latest().newest.file)
    for name in ("loss_guard", "held_out_guard", "rollbacks"):
        del checkpoint.progress[name]
    text = run.text()
    training = Training.resume(checkpoint, Vocabulary.from_text(text).encode(text))
    assert (training.rollbacks, training.held_out_guard.lowest) == ((), math.inf)


@pytest.mark.slow
def test_overfitting_is_logged_and_drawn_and_the_best_model_kept(tmp_path, caplog):
    rng = random.Random(0)
    text = "".join(rng.choice("abcdefgh ") for _ in range(400))  # can only be memorised
    config = gru_like(hidden=48, layers=1, streams=2, steps=300, learning_rate=0.02, validate_every=10)
    run = new_run(tmp_path, config, text)
    assert train(run)
    status, latest, curve = run.status, run.latest(), Curves().get(run)
    held_out = {p["step"]: p["validation_loss"] for p in run.history() if p["validation_loss"] is not None}
    lowest = min(held_out, key=held_out.__getitem__)
    assert status.overfitting_since == latest.best.step == curve.overfitting_since == lowest
    assert status.warnings[-1].startswith(f"overfitting: the held-out loss has risen since step {lowest}")
    assert caplog.text.count("overfitting: ") == 1
    assert load(run.path / latest.best.file).step == lowest
    unmarked = replace(curve, overfitting_since=None)
    assert draw_loss_curve(curve, "svg", "light") != draw_loss_curve(unmarked, "svg", "light")


def test_recurring_rise_of_held_out_loss_is_logged_once(tmp_path, caplog):
    run = new_run(tmp_path, gru_like())
    training = start_or_resume(run)
    writer, guard = RunWriter(run, training, Cadence(), lambda status: None), training.held_out_guard
    for lowest_at, times in ((10, 1), (40, 2)):
        guard.lowest, guard.step = 1.5, lowest_at
        for guard.overfitting in (True, False, True):
            writer._report_overfitting()
        assert caplog.text.count("overfitting: ") == times


@pytest.mark.slow
def test_run_that_learns_has_no_warnings(tmp_path):
    for name, config in (("classic", classic_like()), ("gru", gru_like(steps=200))):
        run = new_run(tmp_path / name, config)
        assert train(run)
        assert (run.status.warnings, run.status.rollbacks) == ([], [])


def test_hard_part_of_a_text_is_not_an_explosion():
    costs = np.array([1.0] * 10 + [8.0] * 10)
    guard = LossGuard(costs)
    for step in range(200):
        guard.note(step, 0.6 * costs[step % 20] if step % 20 < 10 else 1.1 * 8.0)
    with pytest.raises(DivergedError, match=r"exploded to 1\.3 at step 204"):
        note_all(guard, dict.fromkeys(range(200, 220), 1.3))


def test_loss_that_starts_high_and_falls_is_not_an_explosion():
    guard = LossGuard(np.array([3.0]))
    for step in range(100):
        guard.note(step, 30.0 - 0.2 * step)


@pytest.mark.parametrize(
    ("held_out", "smooth", "overfitting"),
    [
        ([2.0, 1.5, 1.6, 1.7, 1.8], [2.0, 1.5, 1.4, 1.3, 1.2], True),
        ([2.0, 1.5, 1.6, 1.7], [2.0, 1.5, 1.4, 1.3], False),  # too early
        ([2.0, 1.5, 1.505, 1.501, 1.505], [2.0, 1.5, 1.4, 1.3, 1.2], False),  # an insignificant rise
        ([2.0, 1.5, 1.6, 1.7, 1.8], [2.0, 1.5, 1.6, 1.7, 1.8], False),  # nothing is memorised
        ([2.0, 1.5, 1.6, 1.7, 1.8, 1.4], [2.0, 1.5, 1.4, 1.3, 1.2, 1.1], False),  # recovered
    ],
)
def test_overfitting_is_a_lasting_rise_while_training_loss_falls(held_out, smooth, overfitting):
    guard, resumed = HeldOutGuard(10), HeldOutGuard(10)
    for index, (loss, training_loss) in enumerate(zip(held_out, smooth, strict=True)):
        guard.note(10 * index, loss, training_loss)
        guard.note(10 * index, loss, training_loss)
        resumed.restore(guard.progress())
    assert guard.overfitting == resumed.overfitting == overfitting


def test_anchors_are_the_first_checkpoint_of_each_block():
    assert [step for step in range(40) if is_anchor(step, 2)] == [0, 6, 10, 16, 20, 26, 30, 36]
    assert [step for step in range(40) if is_anchor(step, 7)] == [0, 7, 14, 21, 28, 35]
    assert kept_anchors([0, 7, 14, 21, 22, 28], 27, 7) == {21, 28}


def note_all(guard: LossGuard, losses: dict[int, float]) -> None:
    for step, loss in losses.items():
        guard.note(step, loss)
