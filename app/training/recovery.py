"""Where a run goes on from, after a stop or when its loss has exploded, and what its status says of that."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import RunFileError
from app.intake.needs import check_memory
from app.store.capacity import of_this_process
from app.store.run import Run
from model.checkpoint import Checkpoint, load
from model.errors import CharloomError, CheckpointError, DivergedError
from model.guards import Rollback, block_start
from model.training import Training
from model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


def start_or_resume(run: Run) -> Training:
    """The run's training as of its newest valid checkpoint, or fresh if it has none.

    A damaged checkpoint is put aside under another name, with the reason in the log.
    """
    text = run.text()
    initial = initial_checkpoint(run)
    known = initial.vocabulary.characters if initial else ""
    vocabulary = Vocabulary(sorted({*text, *known}))
    check_memory(run.config, len(text), len(vocabulary), of_this_process())
    ids = vocabulary.encode(text)
    refused: list[CheckpointError] = []
    for path in reversed(run.checkpoints().values()):
        try:
            checkpoint = _load(run, path)
            with resuming(checkpoint, path, vocabulary):
                training = Training.resume(checkpoint, ids)
        except CheckpointError as error:
            logger.warning("run %s: checkpoint refused: %s", run.name, error)
            refused.append(error)
            continue
        for refusal in refused:
            run.check()
            refusal.path.rename(refusal.path.with_suffix(".refused"))
        logger.info("run %s continues from step %d", run.name, training.step)
        return training
    if refused:
        raise RunFileError(
            f"none of the {len(refused)} checkpoints of run {run.name!r} can be used; the newest: "
            f"{refused[0]}; restore intact ones, or delete them to train from the beginning"
        )
    logger.info("run %s starts", run.name)
    member = max(1, run.spec.member)
    training = Training(run.config, vocabulary, ids, run.spec.corpus_sha256, member=member)
    if initial:
        training.begin_with(initial)
    return training


def _load(run: Run, path: Path) -> Checkpoint:
    """A checkpoint of this run. Raises CheckpointError for any other file."""
    checkpoint = load(path)
    if (checkpoint.config, checkpoint.text_sha256) != (run.config, run.spec.corpus_sha256):
        raise CheckpointError(path, "belongs to another run: its settings or its text differ")
    return checkpoint


@contextmanager
def resuming(checkpoint: Checkpoint, path: Path, vocabulary: Vocabulary) -> Iterator[None]:
    """Turn whatever keeps a checkpoint from being resumed within the block into CheckpointError."""
    if checkpoint.vocabulary != vocabulary:
        raise CheckpointError(path, "has other characters than the text of the run")
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(path, error.reason) from None
    except CharloomError:
        raise  # of the text or the settings, whatever the checkpoint
    except Exception as error:
        raise CheckpointError(path, f"cannot be resumed: {error!r:.200}") from None


def initial_checkpoint(run: Run) -> Checkpoint | None:
    """What a forked run begins with; None for others. Raises RunFileError if it cannot be used."""
    try:
        return load(run.initial_path) if run.initial_path.exists() else None
    except CheckpointError as error:
        raise RunFileError(
            f"run {run.name!r} was forked, and the checkpoint that it starts from is lost: {error}"
        ) from error


def is_anchor(step: int, every: int) -> bool:
    """Whether a run that writes a checkpoint at least `every` updates may go back to the one of `step`.

    That depends on the step alone: other checkpoints are written by the clock, and a run that went back to
    one of those could not be repeated. Of each block that the loss is judged in it is the first.
    """
    return step % every == 0 and (step < every or block_start(step) != block_start(step - every))


def kept_anchors(steps: list[int], step: int, every: int) -> set[int]:
    """Of the checkpoints `steps`, those a run at `step` may need: the last judged good, and later ones."""
    anchors = [candidate for candidate in steps if is_anchor(candidate, every)]
    good = [candidate for candidate in anchors if candidate <= block_start(step)]
    return {*good[-1:], *(candidate for candidate in anchors if candidate > block_start(step))}


def roll_back(run: Run, training: Training, error: DivergedError) -> Checkpoint | None:
    """Take the training back to its newest usable checkpoint from before the block of the error.

    None if there is none; the training cannot go on then.
    """
    rollbacks, elapsed = training.rollbacks, training.elapsed
    for candidate, path in reversed(run.checkpoints().items()):
        if candidate <= block_start(error.step) and is_anchor(candidate, run.config.checkpoint_every):
            # as they were, also after an attempt that failed half-way
            training.rollbacks, training.elapsed = rollbacks, elapsed
            try:
                checkpoint = _load(run, path)
                with resuming(checkpoint, path, training.vocabulary):
                    training.roll_back(checkpoint, error)
                return checkpoint
            except CheckpointError as refusal:
                logger.warning("run %s: checkpoint refused: %s", run.name, refusal)
    return None


def warnings(training: Training) -> list[str]:
    """What a person should know of the run, oldest first."""
    told = [describe(rollback, number) for number, rollback in enumerate(training.rollbacks, 1)]
    guard = training.held_out_guard
    if guard.overfitting:
        told.append(
            f"overfitting: the held-out loss has risen since step {guard.step:,}, where it was "
            f"{guard.lowest:.4f}, while the training loss still falls; the best checkpoint is kept"
        )
    return told


def describe(rollback: Rollback, number: int) -> str:
    """One rollback, the `number`-th of its run, in words."""
    what = "was not a number" if rollback.loss is None else f"exploded to {rollback.loss:.4g}"
    return (
        f"the loss {what} at step {rollback.step:,}: rolled back to step {rollback.to:,}, "
        f"with the learning rate divided by {2**number}"
    )
