"""Checkpoints that are valid but cannot be resumed are set aside; the run continues from the one before."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.store.run import Run
from app.store.run_store import RunStore
from app.training.trainer import train_run
from model.checkpoint import Checkpoint, encode, load
from model.vocabulary import Vocabulary
from tests.support.runs import classic_like, outcome, small_text

CONFIG = classic_like(steps=40, checkpoint_every=10, sample_every=10)


def without(name: str) -> Callable[[Checkpoint], object]:
    return lambda checkpoint: checkpoint.progress.pop(name)


def with_progress(**changes: object) -> Callable[[Checkpoint], object]:
    return lambda checkpoint: checkpoint.progress.update(changes)


def with_other_characters(checkpoint: Checkpoint) -> None:
    characters = checkpoint.vocabulary.characters
    checkpoint.vocabulary = Vocabulary(characters[:-1] + chr(ord(characters[-1]) + 1))


CHANGES: dict[str, Callable[[Checkpoint], object]] = {
    "no seconds": without("seconds"),
    "no random state": without("random_state"),
    "other random state": with_progress(random_state={"bit_generator": "MT19937"}),
    "random state out of range": with_progress(
        random_state={
            "bit_generator": "PCG64",
            "state": {"state": -1, "inc": 2**200},
            "has_uint32": 0,
            "uinteger": 0,
        }
    ),
    "no tensors": lambda checkpoint: checkpoint.tensors.clear(),
    "other characters": with_other_characters,
}


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    run = RunStore(tmp_path / "store").create("run", CONFIG, small_text(1000), "small.txt")
    train_run(run, lambda: run.path.joinpath("step-000000030.safetensors").exists())
    return run


@pytest.mark.parametrize("kind", CHANGES)
def test_checkpoint_that_cannot_be_resumed_is_set_aside(stopped: Run, tmp_path: Path, kind: str):
    expected = RunStore(tmp_path / "undisturbed").create("run", CONFIG, small_text(1000), "small.txt")
    train_run(expected, lambda: False)
    path = stopped.checkpoint_path(max(stopped.checkpoints()))
    checkpoint = load(path)
    CHANGES[kind](checkpoint)
    path.write_bytes(encode(checkpoint))
    assert train_run(stopped, lambda: False)
    assert path.with_suffix(".refused").exists()
    path.with_suffix(".refused").unlink()
    result, whole = outcome(stopped), outcome(expected)
    assert result == whole


def test_best_checkpoint_in_place_of_the_newest_is_set_aside(stopped: Run):
    newest = max(stopped.checkpoints())
    latest = stopped.latest()
    shutil.copy(stopped.path / latest.best.file, stopped.checkpoint_path(newest + 1))
    assert train_run(stopped, lambda: False)
    assert stopped.checkpoint_path(newest + 1).with_suffix(".refused").exists()
