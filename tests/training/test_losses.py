"""Reported losses belong to the step they are reported with; the smooth loss is not biased by its start."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.commands.progress import summary
from app.engine.models import ModelStore
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.training.trainer import train_run
from model.checkpoint import Checkpoint, decode, encode
from model.config import RunConfig
from model.training import Training, train
from model.vocabulary import Vocabulary
from tests.support.runs import classic_like, gru_like, outcome, small_text

TEXT = small_text()
VOCABULARY = Vocabulary.from_text(TEXT)
GOLDEN = Path(__file__).parents[1] / "golden" / "format-1" / "checkpoints"
BOTH = pytest.mark.parametrize("config", [classic_like(), gru_like()], ids=["classic", "gru"])


def training(config: RunConfig) -> Training:
    return Training(config, VOCABULARY, VOCABULARY.encode(TEXT), "text", lambda: 0.0)


@BOTH
def test_smooth_loss_weights_losses_by_age_only(config):
    losses: list[float] = []
    for event in train(training(config)):
        if event.loss is None:
            assert event.smooth_loss is None
            continue
        losses.append(event.loss)
        weights = config.smoothing ** np.arange(len(losses))[::-1]
        assert event.smooth_loss == pytest.approx(np.average(losses, weights=weights), rel=1e-10)


def test_summed_smooth_loss_starts_from_the_first_loss():
    config, expected = classic_like(), None
    for event in train(training(config)):
        if event.loss is None:
            continue
        share = config.smoothing
        expected = event.loss if expected is None else share * expected + (1 - share) * event.loss
        assert event.summed_smooth_loss == expected * config.sequence_length


@BOTH
def test_smooth_loss_continues_exactly_after_a_resume(config):
    whole = {event.step: event for event in train(training(config))}
    first = training(config)
    for event in train(first):
        if event.step == 25:
            break
    resumed = Training.resume(decode(encode(first.checkpoint())), VOCABULARY.encode(TEXT), lambda: 0.0)
    for event in train(resumed):
        assert event == whole[event.step]


def best_losses(training: Training) -> dict[str, object]:
    return {name: training.best_checkpoint().progress[name] for name in ("loss", "smooth_loss", "seconds")}


@BOTH
def test_best_checkpoint_has_the_losses_of_its_own_step(config):
    run = training(config)
    events = {event.step: event for event in train(run)}
    assert run.best_step != run.step or config.best_by == "validation_loss"
    then = events[run.best_step]
    assert best_losses(run) == {"loss": then.loss, "smooth_loss": then.smooth_loss, "seconds": then.seconds}


def test_best_checkpoint_has_its_losses_after_a_resume():
    run = training(gru_like(steps=30, learning_rate=0.5))
    for event in train(run):
        if event.step == 25:
            break
    assert run.best_step < 25
    resumed = Training.resume(decode(encode(run.checkpoint())), VOCABULARY.encode(TEXT), lambda: 0.0)
    assert best_losses(resumed) == best_losses(run)
    assert resumed.best_checkpoint().progress == run.best_checkpoint().progress


def test_answer_of_the_best_model_has_the_losses_of_its_step(client, trained_root):
    run = RunStore(trained_root).get("classic")
    answer = client.post("/generate", json={"model": "classic@best", "length": 1}).json()
    assert answer["step"] < run.status.step
    point = next(point for point in run.history() if point["step"] == answer["step"])
    losses = answer["losses"]
    assert (losses["loss"], losses["smooth_loss"]) == (point["loss"], point["smooth_loss"])
    assert losses["best_loss"] == run.latest().best.loss


def test_best_checkpoint_of_an_earlier_version_has_no_losses(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "checkpoints")
    models = ModelStore(RunStore(tmp_path / "checkpoints"))
    best, newest = models.get("gru@best"), models.get("gru@24")
    assert best.progress["loss"] is None
    assert best.progress["smooth_loss"] is None
    assert best.progress["best_loss"] > 0
    assert newest.progress["smooth_loss"] > 0


def earlier(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint as earlier versions wrote it, with the biased running mean only."""
    progress = checkpoint.progress
    progress["smooth_loss"] = progress["assignment_loss"]
    for name in ("assignment_loss", "first_loss", "best"):
        del progress[name]
    return decode(encode(checkpoint))


def test_checkpoint_of_an_earlier_version_keeps_its_smoothing():
    config = gru_like()
    run = training(config)
    for event in train(run):
        if event.step == 20:
            break
    biased = run.smoothed.assignment
    resumed = Training.resume(earlier(run.checkpoint()), VOCABULARY.encode(TEXT), lambda: 0.0)
    assert resumed.smooth_loss == biased
    resumed.update()
    expected = config.smoothing * biased + (1 - config.smoothing) * resumed.loss
    assert resumed.smooth_loss == expected
    assert resumed.best_checkpoint().progress["loss"] is None


def test_held_out_loss_is_reported_with_its_step(tmp_path):
    run = RunStore(tmp_path).create("run", gru_like(), TEXT, "small.txt")
    seen: dict[int, int | None] = {}

    def look() -> bool:
        seen[run.status.step] = run.status.validation_step
        return False

    train_run(run, look)
    assert run.status.validation_step == 60
    assert "at step 60" in summary(run.status)
    assert "held-out 4.5700 at step 0" in summary(Status(step=99, validation_loss=4.57, validation_step=0))
    assert "at step" not in summary(Status(step=99, validation_loss=4.57))


def test_held_out_loss_and_step_are_kept_after_a_stop(tmp_path):
    run = RunStore(tmp_path).create("run", gru_like(), TEXT, "small.txt")
    steps = iter(range(100))
    train_run(run, lambda: next(steps) == 25)
    assert run.status.validation_step == 20
    assert run.status.validation_loss == {p["step"]: p["validation_loss"] for p in run.history()}[20]


def test_run_and_samples_report_the_step_of_held_out_loss(client):
    assert client.get("/runs/gru").json()["validation_step"] == 60
    assert client.get("/runs/classic").json()["validation_step"] is None
    samples = client.get("/samples", params={"model": "gru"}).json()["samples"]
    assert [(sample["step"], sample["validation_step"]) for sample in samples][:2] == [(0, 0), (20, 20)]


def test_imported_run_has_the_held_out_loss_with_its_step(client, serving, tmp_path):
    exported = client.get("/runs/gru/export", params={"step": "best"}).content
    imported = serving(tmp_path / "other").post("/runs/import", content=exported).json()
    run = client.get("/runs/gru").json()
    assert imported["validation_loss"] == run["best"]["loss"]
    assert imported["validation_step"] == run["best"]["step"]
    assert json.dumps(imported)


def test_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    undisturbed = RunStore(tmp_path).create("a", classic_like(), TEXT, "small.txt")
    train_run(undisturbed, lambda: False)
    stopped: Run = RunStore(tmp_path).create("b", classic_like(), TEXT, "small.txt")
    for at in (20, 31):
        train_run(stopped, lambda at=at: stopped.status.step >= at)
    train_run(stopped, lambda: False)
    assert outcome(stopped) == outcome(undisturbed)
