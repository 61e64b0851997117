"""Trains one run: its checkpoints, its loss curve and samples, its status, and its exact resume.

The order of writing is what makes a kill harmless. Curve and samples reach the disk before the checkpoint of
the same step, the checkpoint before `latest.json` names it, `latest.json` before older files go. A resumed
run cuts curve and samples back to its checkpoint and writes the rest again, the same to the bit.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import RunFileError
from app.intake.merge import merge_group
from app.store import history
from app.store.capacity import kernel
from app.store.files import flush
from app.store.records import MAX_TIME, CheckpointEntry, Latest, State, Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Budget
from app.store.temporaries import remove_temporaries
from app.training.processes import running_passes
from app.training.recovery import kept_anchors, roll_back, start_or_resume, warnings
from model.checkpoint import Checkpoint, encode, load
from model.config import MAX_SAMPLED_CHECKPOINTS
from model.errors import CheckpointError, DivergedError
from model.guards import ROLLBACKS
from model.ngram import baselines
from model.training import Progress, Training, train

SPEED_MEMORY = 0.7  # part of the old speed in its running mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cadence:
    """How often a run is saved, in addition to its own interval of steps, and how many checkpoints are kept.

    Attributes:
        checkpoint_seconds: longest time without a checkpoint; a run begins with one a second, so that one can
            watch it learn. Where writing one takes long, they are spaced so that at most a twentieth of the
            time goes into them.
        status_seconds: time between heartbeats.
        keep: newest checkpoints that stay, next to step 0, the sampled ones (at most 100) and the best.
        store_bytes: most bytes that the whole store may take, 0 for no limit, None for a share of its volume.
    """

    checkpoint_seconds: float = 5.0
    status_seconds: float = 1.0
    keep: int = 3
    store_bytes: int | None = None


def train_run(
    run: Run,
    should_stop: Callable[[], bool],
    on_status: Callable[[Status], None] = lambda status: None,
    cadence: Cadence | None = None,
) -> bool:
    """Train `run` from where it stands to its end, or until `should_stop()`; say whether it is finished.

    `on_status` is called after each writing of the status. Holds the run, unless the caller does.

    Raises LeaseLostError if another process has taken the run over, filelock's Timeout if another holds it,
    RunFileError (text or checkpoints unusable), TextError, DivergedError, or OSError (a full disk, …).
    The run can be trained again after each, and goes on from its newest checkpoint.
    """
    if run.claim is None:
        with RunStore(run.path.parent).holding(run.name) as held:
            return train_run(held, should_stop, on_status, cadence)
    remove_temporaries(run.path)
    if run.spec.apart:
        merge_group(run, (cadence or Cadence()).store_bytes)
        return True
    training = start_or_resume(run)
    writer = RunWriter(run, training, cadence or Cadence(), on_status)
    writer.begin()
    overflowing = np.errstate(over="ignore", invalid="ignore")  # ends in DivergedError
    with overflowing, running_passes(training.members, training.config) as training.passes:
        while not _train_on(training, writer, should_stop):
            pass
    writer.end()
    return training.finished


def _train_on(training: Training, writer: RunWriter, should_stop: Callable[[], bool]) -> bool:
    """Train until the end or a stop; False if the loss exploded, and the run was taken back to go on."""
    try:
        for progress in train(training):
            writer.take(progress)
            if should_stop():
                break
    except DivergedError as error:
        writer.roll_back(error)
        return should_stop()
    return True


class RunWriter:
    """Writes a run's files as its training goes on."""

    def __init__(
        self, run: Run, training: Training, cadence: Cadence, on_status: Callable[[Status], None]
    ) -> None:
        self.run, self.training, self.cadence, self.on_status = run, training, cadence, on_status
        self.held_out: tuple[int, float] | None = None  # step and loss of the last measurement
        self.speed: float | None = None
        self._measured = (time.monotonic(), training.step)
        self._saved_step = -1
        self._compared, self._told_of_rise = False, -1
        self._save_due = self._status_due = 0.0  # at once: the untrained network is a checkpoint too
        self._best: CheckpointEntry | None = None
        before = run.status
        self._attempts = {"deaths": before.deaths, "died_at": before.died_at}
        # the run that trains is the last one to have trained, also where the clock was set back since
        self._store = RunStore(run.path.parent)
        self._not_before = math.nextafter(self._store.last_trained(), math.inf)
        self._budget = Budget(self._store, self.cadence.store_bytes)

    def begin(self) -> None:
        """Bring all files to the step that the training stands at: after a kill they may be ahead of it."""
        self._cut_back()
        self._best = self._best_on_disk()
        if self.training.step:
            self.save()
        self.write_status("training")

    def _cut_back(self) -> None:
        step = self.training.step or -1  # a training at step 0 reports step 0 again
        self.run.cut_back(step)
        self.held_out = history.last_measured(self.run.history(), "validation_loss")

    def roll_back(self, error: DivergedError) -> None:
        """Take the run back to its last good checkpoint; raises `error` if there is none, or no use in it.

        Killed anywhere in here, the run goes on from what is left, meets the same error and comes here again.
        """
        training = self.training
        count = len(training.rollbacks)
        checkpoint = roll_back(self.run, training, error) if count < ROLLBACKS else None
        if checkpoint is None:
            raise DivergedError(error.step, error.loss, count) from None
        logger.warning("run %s: %s", self.run.name, warnings(training)[len(training.rollbacks) - 1])
        self._keep_best()
        newest = self._entry(self.run.checkpoint_path(checkpoint.step), checkpoint, training.smooth_loss)
        self.run.write_latest(Latest(newest=newest, best=self._best))
        for step, path in reversed(self.run.checkpoints().items()):  # a resumed run takes the newest there is
            if step > checkpoint.step:
                self.run.remove(path)
        self._prune()
        self._cut_back()
        self._saved_step = checkpoint.step
        self._measured = (time.monotonic(), training.step)
        self.write_status("training")

    def take(self, progress: Progress) -> None:
        """Write what is due after an update."""
        if progress.validation_loss is not None:
            self.held_out = (progress.step, progress.validation_loss)
            self._tell_of_overfitting()
        if progress.record:
            self.run.append(self.run.history_path, [point(progress)])
        if progress.samples:
            self.run.append(self.run.samples_path, [asdict(sample) for sample in progress.samples])
        now = time.monotonic()
        if self._checkpoint_due(progress, now):
            self.save()
        if now >= self._status_due:
            self.write_status("training")
        if not self._compared:
            self._compare()

    def _tell_of_overfitting(self) -> None:
        """Once for each lowest loss from which it has risen, however it goes up and down after that."""
        guard = self.training.held_out_guard
        if guard.overfitting and guard.step != self._told_of_rise:
            logger.warning("run %s: %s", self.run.name, warnings(self.training)[-1])
            self._told_of_rise = guard.step

    def _compare(self) -> None:
        """Measures, once a run, what models without a network reach; by now the first checkpoint is there."""
        self._compared = True
        if not self.run.baselines():
            ids = self.training.vocabulary.encode(self.run.text())
            config = self.run.config
            losses = baselines(ids, len(self.training.vocabulary), config.validation_fraction)
            self.run.write_baselines(losses)

    def end(self) -> None:
        """Write down the last step: of the run if it is finished, else as one that waits to be continued."""
        if self._saved_step != self.training.step:
            self.save()
        self.write_status("finished" if self.training.finished else "queued")

    def _checkpoint_due(self, progress: Progress, now: float) -> bool:
        return (
            progress.step % self.run.config.checkpoint_every == 0
            or self._is_sampled(progress.step)
            or now >= self._save_due
        )

    def save(self) -> None:
        """Write the checkpoint of this step, and the best if it is a new one; then let go of older ones."""
        began = time.monotonic()
        training = self.training
        if not np.isfinite(training.parameters).all():
            raise DivergedError(training.step, math.nan)
        for path in (self.run.history_path, self.run.samples_path):
            flush(path)
        self._keep_best()
        newest = self._write(training.checkpoint(), "step", training.smooth_loss)
        self.run.write_latest(Latest(newest=newest, best=self._best))
        if self._saved_step < 0:
            self._store.announce()
        self._prune()
        self._saved_step = training.step
        ended = time.monotonic()
        # one a second while the text changes most, ever fewer as it changes less
        pause = min(self.cadence.checkpoint_seconds, max(1.0, training.elapsed / 20))
        self._save_due = ended + max(pause, 20 * (ended - began))

    def _keep_best(self) -> None:
        training = self.training
        if not math.isfinite(training.best_loss):
            self._best = None
        elif self._best is None or self._best.step != training.best_step:
            self._best = self._write(training.best_checkpoint(), "best", training.best_loss)

    def _best_on_disk(self) -> CheckpointEntry | None:
        """The entry of the best checkpoint, if it is on disk and whole: a file once named never changes."""
        try:
            latest = self.run.latest()
            if latest and latest.best and latest.best.step == self.training.best_step:
                checkpoint = load(self.run.path / latest.best.file)
                return latest.best if checkpoint.digest == latest.best.digest else None
        except (RunFileError, CheckpointError) as error:
            logger.warning("best checkpoint rewritten: %s", error)
        return None

    def _write(self, checkpoint: Checkpoint, kind: str, loss: float | None) -> CheckpointEntry:
        path = (self.run.best_path if kind == "best" else self.run.checkpoint_path)(checkpoint.step)
        data = encode(checkpoint)
        self.run.check()
        self._budget.make_room(len(data))
        self.run.write(path, data)
        return self._entry(path, checkpoint, loss)

    def _entry(self, path: Path, checkpoint: Checkpoint, loss: float | None) -> CheckpointEntry:
        written = min(MAX_TIME, max(time.time(), self._not_before))
        return CheckpointEntry(
            file=path.name, step=checkpoint.step, digest=checkpoint.digest, time=written, loss=loss
        )

    def _prune(self) -> None:
        checkpoints = self.run.checkpoints()
        kept = {*list(checkpoints)[-self.cadence.keep :]}
        kept |= kept_anchors(list(checkpoints), self.training.step, self.run.config.checkpoint_every)
        for step, path in checkpoints.items():
            if not self._is_sampled(step) and step not in kept:
                self.run.remove(path)
        for path in self.run.path.glob("best-*.safetensors"):
            if self._best is None or path.name != self._best.file:
                self.run.remove(path)

    def _is_sampled(self, step: int) -> bool:
        """Whether the checkpoint of a step stays because of its sample, as that of step 0 does."""
        spacing = self.run.config.sample_spacing(self.training.step, MAX_SAMPLED_CHECKPOINTS)
        return step == 0 or (spacing > 0 and step % spacing == 0)

    def write_status(self, state: State) -> None:
        training, guard = self.training, self.training.held_out_guard
        now = time.time()
        self._measure_speed()
        left = self._seconds_left()
        status = Status(
            state=state,
            step=training.step,
            steps=self.run.spec.steps,
            fraction=training.fraction,
            heartbeat=now,
            host=socket.gethostname(),
            process=os.getpid(),
            loss=training.loss,
            smooth_loss=training.smooth_loss,
            validation_loss=_finite(self.held_out[1]) if self.held_out else None,
            validation_step=self.held_out[0] if self.held_out else None,
            characters_per_second=self.speed,
            seconds=training.elapsed,
            expected_end=min(MAX_TIME, now + left) if left is not None and state == "training" else None,
            warnings=warnings(training),
            rollbacks=[rollback.to for rollback in training.rollbacks],
            overfitting_since=guard.step if guard.overfitting else None,
            kernel=kernel(),
            **self._attempts,
        )
        self.run.write_status(status)
        self._status_due = time.monotonic() + self.cadence.status_seconds
        self.on_status(status)

    def _measure_speed(self) -> None:
        """Characters per second since the last call, as a running mean over the heartbeats."""
        now, step = time.monotonic(), self.training.step
        then, last_step = self._measured
        if step > last_step:
            speed = (step - last_step) * self._characters_per_step / (now - then)
            self.speed = (
                speed if self.speed is None else SPEED_MEMORY * self.speed + (1 - SPEED_MEMORY) * speed
            )
            self._measured = (now, step)

    def _seconds_left(self) -> float | None:
        config = self.run.config
        if config.minutes:
            return max(0.0, 60 * config.minutes - self.training.elapsed)
        if self.speed:
            return (config.steps - self.training.step) * self._characters_per_step / self.speed
        return None

    @property
    def _characters_per_step(self) -> int:
        return self.run.config.sequence_length * self.run.config.streams


def point(progress: Progress) -> dict[str, Any]:
    """One line of the loss curve: losses in nats per character, `seconds` of training time."""
    fields = asdict(progress)
    for name in ("record", "samples", "finished"):
        del fields[name]
    return {name: _finite(value) if isinstance(value, float) else value for name, value in fields.items()}


def _finite(value: float | None) -> float | None:
    """None for what JSON does not have: a held-out loss may overflow before the training loss does."""
    return value if value is not None and math.isfinite(value) else None
