"""Trains one run and writes its files: checkpoints, loss curve, samples and status.

The order of the writes makes it safe to kill the worker at any time: curve and samples are flushed before the
checkpoint of the same step is written, the checkpoint before `latest.json` names it, and `latest.json` before
older files are deleted. A resumed run truncates curve and samples to its checkpoint and writes the rest
again, the same to the bit.
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
from app.store.files import flush, written_at
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

SPEED_MEMORY = 0.7  # weight of the old value in the moving average of the speed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cadence:
    """How often a run is saved, in addition to its own `checkpoint_every`, and how many checkpoints are kept.

    Attributes:
        checkpoint_seconds: maximum time between checkpoints. A run begins with one per second, so that users
            can watch it learn. Slow writes are spaced so that they take at most 5% of the time.
        status_seconds: time between heartbeats.
        keep: number of newest checkpoints to keep, in addition to step 0, the sampled ones (at most 100), the
            anchors and the best.
        store_bytes: the limit of the whole store; 0 for no limit, None for a fraction of its volume.
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
    """Trains or resumes `run` until its end or until `should_stop()`; returns whether it is finished.

    `on_status` is called after each write of the status. Acquires the run's lease unless the caller has it.

    Raises LeaseLostError if another process has taken over the run, filelock's Timeout if another process
    holds it, RunFileError (text or checkpoints unusable), TextError, DivergedError, OSError (a full disk, …).
    After any of these the run can be trained again, from its newest checkpoint.
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
    overflowing = np.errstate(over="ignore", invalid="ignore")  # the loss guard detects these
    with overflowing, running_passes(training.members, training.config) as training.passes:
        while not _train_on(training, writer, should_stop):
            pass
    writer.end()
    return training.finished


def _train_on(training: Training, writer: RunWriter, should_stop: Callable[[], bool]) -> bool:
    """Trains until the end or a stop; returns False if the run was rolled back and has to be continued."""
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
    """Writes the files of a run during its training."""

    def __init__(
        self, run: Run, training: Training, cadence: Cadence, on_status: Callable[[Status], None]
    ) -> None:
        self.run, self.training, self.cadence, self.on_status = run, training, cadence, on_status
        self.held_out: tuple[int, float] | None = None  # step and loss of the last measurement
        self.speed: float | None = None
        self._measured = (time.monotonic(), training.step)
        self._saved_step = -1
        self._compared, self._reported_rise = False, -1
        self._save_due = self._status_due = 0.0  # due immediately: the untrained network is a checkpoint too
        self._best: CheckpointEntry | None = None
        before = run.status
        self._attempts = {"deaths": before.deaths, "died_at": before.died_at, "lost": before.lost}
        # times of checkpoints increase even if the clock was set back, because the newest one is served
        self._store = RunStore(run.path.parent)
        self._not_before = math.nextafter(self._store.last_trained(), math.inf)
        self._budget = Budget(self._store, self.cadence.store_bytes)

    def begin(self) -> None:
        """Truncates all files to the current step; after a kill they may be ahead of the checkpoint."""
        self._cut_back()
        self._best = self._best_on_disk()
        if self.training.step:
            self.save()
        self.write_status("training")

    def _cut_back(self) -> None:
        step = self.training.step or -1  # a training at step 0 yields step 0 again
        self.run.cut_back(step)
        self.held_out = history.last_measured(self.run.history(), "validation_loss")

    def roll_back(self, error: DivergedError) -> None:
        """Rolls the run back to its last good checkpoint.

        Raises DivergedError if there is none, or after too many rollbacks. If the worker is killed in here,
        the run resumes from the remaining checkpoints, reaches the same error and is rolled back again.
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
        for step, path in reversed(self.run.checkpoints().items()):  # a resume would use the newest one
            if step > checkpoint.step:
                self.run.remove(path)
        self._prune()
        self._cut_back()
        self._saved_step = checkpoint.step
        self._measured = (time.monotonic(), training.step)
        self.write_status("training")

    def take(self, progress: Progress) -> None:
        """Writes what is due after an update."""
        if progress.validation_loss is not None:
            self.held_out = (progress.step, progress.validation_loss)
            self._report_overfitting()
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

    def _report_overfitting(self) -> None:
        """Logs a warning, once for each minimum of the held-out loss."""
        guard = self.training.held_out_guard
        if guard.overfitting and guard.step != self._reported_rise:
            logger.warning("run %s: %s", self.run.name, warnings(self.training)[-1])
            self._reported_rise = guard.step

    def _compare(self) -> None:
        """Measures the baselines, once per run. This takes time, so it is done after the first checkpoint."""
        self._compared = True
        if not self.run.baselines():
            ids = self.training.vocabulary.encode(self.run.text())
            config = self.run.config
            losses = baselines(ids, len(self.training.vocabulary), config.validation_fraction)
            self.run.write_baselines(losses)

    def end(self) -> None:
        """Saves the last step; an unfinished run goes back to the queue."""
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
        """Writes the checkpoint of this step, and a new best one; then deletes older ones."""
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
        # one per second at first, when the model improves fastest, then less often
        pause = min(self.cadence.checkpoint_seconds, max(1.0, training.elapsed / 20))
        self._save_due = ended + max(pause, 20 * (ended - began))

    def _keep_best(self) -> None:
        training = self.training
        if not math.isfinite(training.best_loss):
            self._best = None
        elif self._best is None or self._best.step != training.best_step:
            self._best = self._write(training.best_checkpoint(), "best", training.best_loss)

    def _best_on_disk(self) -> CheckpointEntry | None:
        """The entry of the best checkpoint in latest.json, if its file is intact; None otherwise."""
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
        self._not_before = min(MAX_TIME, max(written_at(path), self._not_before))
        return CheckpointEntry(
            file=path.name, step=checkpoint.step, digest=checkpoint.digest, time=self._not_before, loss=loss
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
        """Whether the checkpoint of a step is kept because the run wrote a sample there; step 0 always is."""
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
        """Updates the moving average of characters per second."""
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
    """A point of the loss curve as a JSON object. Losses are in nats per character."""
    fields = asdict(progress)
    for name in ("record", "samples", "finished"):
        del fields[name]
    return {name: _finite(value) if isinstance(value, float) else value for name, value in fields.items()}


def _finite(value: float | None) -> float | None:
    """None for values that JSON does not have: a held-out loss may overflow before the training loss does."""
    return value if value is not None and math.isfinite(value) else None
