"""Resumes a run from its checkpoints, after a stop or an exploding loss, and describes that in its status."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import RunFileError
from app.healthcheck import is_running
from app.intake.needs import check_memory
from app.store.capacity import of_this_process
from app.store.records import Status
from app.store.run import Run
from model.checkpoint import Checkpoint, load
from model.errors import CharloomError, CheckpointError, DivergedError
from model.guards import Rollback, block_start
from model.training import Training
from model.vocabulary import Vocabulary

MOST_LOST = 100  # workers that a status names

logger = logging.getLogger(__name__)


def start_or_resume(run: Run) -> Training:
    """The training of a run, resumed from its newest valid checkpoint, or new if it has none.

    Unusable checkpoints are renamed to `.refused`, and the reason is logged. Raises RunFileError (the text or
    all checkpoints are unusable), ConfigError (too little memory), TextError, LeaseLostError, OSError.
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
    """Turns errors in the block that are caused by the checkpoint into CheckpointError."""
    if checkpoint.vocabulary != vocabulary:
        raise CheckpointError(path, "has other characters than the text of the run")
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(path, error.reason) from None
    except CharloomError:
        raise  # caused by the text or the settings
    except Exception as error:
        raise CheckpointError(path, f"cannot be resumed: {error!r:.200}") from None


def initial_checkpoint(run: Run) -> Checkpoint | None:
    """The checkpoint that a fork starts from; None for other runs. Raises RunFileError if it is unusable."""
    try:
        return load(run.initial_path) if run.initial_path.exists() else None
    except CheckpointError as error:
        raise RunFileError(
            f"run {run.name!r} was forked, and the checkpoint that it starts from is lost: {error}"
        ) from error


def is_anchor(step: int, every: int) -> bool:
    """Whether a run with `checkpoint_every` = `every` may be rolled back to its checkpoint of `step`.

    Anchors are the first checkpoint by steps in each block of the loss guard. They depend only on the step:
    checkpoints written by time are not the same in every repetition of a run.
    """
    return step % every == 0 and (step < every or block_start(step) != block_start(step - every))


def kept_anchors(steps: list[int], step: int, every: int) -> set[int]:
    """The anchors among `steps` that a rollback at `step` may need: the last checked one and later ones."""
    anchors = [candidate for candidate in steps if is_anchor(candidate, every)]
    good = [candidate for candidate in anchors if candidate <= block_start(step)]
    return {*good[-1:], *(candidate for candidate in anchors if candidate > block_start(step))}


def roll_back(run: Run, training: Training, error: DivergedError) -> Checkpoint | None:
    """Rolls the training back to its newest usable anchor before the block of `error`.

    Returns its checkpoint, or None if there is none; the training cannot be continued then.
    """
    rollbacks, elapsed = training.rollbacks, training.elapsed
    for candidate, path in reversed(run.checkpoints().items()):
        if candidate <= block_start(error.step) and is_anchor(candidate, run.config.checkpoint_every):
            # restore what a failed attempt may have changed
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
    """The warnings about a run for its status, oldest first."""
    messages = [describe(rollback, number) for number, rollback in enumerate(training.rollbacks, 1)]
    guard = training.held_out_guard
    if guard.overfitting:
        messages.append(
            f"overfitting: the held-out loss has risen since step {guard.step:,}, where it was "
            f"{guard.lowest:.4f}, while the training loss still falls; the best checkpoint is kept"
        )
    return messages


def describe(rollback: Rollback, number: int) -> str:
    """The warning about the `number`-th rollback of a run."""
    what = "was not a number" if rollback.loss is None else f"exploded to {rollback.loss:.4g}"
    return (
        f"the loss {what} at step {rollback.step:,}: rolled back to step {rollback.to:,}, "
        f"with the learning rate divided by {2**number}"
    )


def count_deaths(status: Status, step: int, begun_here: bool) -> tuple[int, list[tuple[str, int]]]:
    """How many workers in a row died at checkpoint `step`; hosts and processes of those that may be alive.

    `status` is what the last one wrote, `begun_here` says whether that was this process. A worker that is
    frozen or cut off loses its run without dying, and other hosts cannot see the difference. So a death is
    counted when it is certain: once a worker of the same host has the run, and the process has ended.
    """
    if status.state != "training":  # nothing else leaves this state
        return 0, []
    deaths, lost = (status.deaths, list(status.lost)) if status.died_at == step else (0, [])
    if status.host is not None and status.process is not None and not begun_here:
        last = (status.host, status.process)
        lost = [*(one for one in lost if one != last), last]
    alive = [one for one in lost if not _has_ended(*one)]
    return deaths + len(lost) - len(alive), alive[-MOST_LOST:]


def _has_ended(host: str, process: int) -> bool:
    """Whether a process of this host is gone. In a restarted container this process may have its number."""
    return host == socket.gethostname() and (process == os.getpid() or not is_running(process))
