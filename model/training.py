"""Training as a generator that yields the progress after each update; resumable to the bit.

It prints nothing, writes no files and starts no threads: the caller stores what it needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass

import numpy as np

from model import buffers
from model.batches import Batches, Ids, split
from model.checkpoint import Checkpoint
from model.config import RunConfig
from model.ensemble import initialise, member_config, merge, network_config
from model.errors import CheckpointError, DivergedError
from model.evaluation import streaming_loss
from model.generation import generate
from model.guards import HeldOutGuard, LossGuard, Rollback
from model.network import Network, named_views
from model.optimizer import clip, learning_rate, make_optimizer
from model.orthogonal import dense_matrices
from model.passes import Passes, SerialPasses
from model.sampling import SamplingConfig
from model.smoothing import SmoothLoss
from model.vocabulary import Vocabulary
from model.warm_start import take_over


@dataclass(frozen=True)
class Sample:
    """A text generated at `step`; `kind` is "sample", or "best" for that of the best model."""

    step: int
    kind: str
    text: str


@dataclass(frozen=True)
class Progress:
    """The progress of a run after `step` updates. Losses are in nats per character.

    Attributes:
        loss: of the last update's window, before the update; None at step 0.
        smooth_loss: the moving average of `loss`; None at step 0.
        summed_smooth_loss: the assignment's smooth loss of a whole sequence; None unless losses are summed.
        validation_loss: the held-out loss, at steps where it is measured; otherwise None.
        record: whether this step is a point of the loss curve.
        samples: the texts generated at this step.
        finished: whether this was the last step of the run.
    """

    step: int
    epoch: int
    characters: int
    seconds: float
    learning_rate: float
    loss: float | None
    smooth_loss: float | None
    summed_smooth_loss: float | None
    validation_loss: float | None
    record: bool
    samples: tuple[Sample, ...]
    finished: bool


class Training:
    """A run in progress: network, optimizer, carried state and position. Advanced by `train`.

    Raises TextError if the text is too short. With `member`, counted from 1, a run of one network starts with
    the weights of that member of an ensemble.

    Attributes:
        step: number of updates made.
        members: the networks being trained; their parameters are the rows of `parameters`, (M, P).
        state: the hidden state carried to the next window, for all members' units, (L, S, B, M*H).
        passes: runs the forward and backward passes; can be replaced by a parallel implementation.
        best_loss, best_step, best: the lowest loss (by `config.best_by`), its step, and the parameters of
            that step; `best_losses` are the losses and seconds of that step.
        elapsed: seconds of training so far.
        rollbacks: returns to an earlier checkpoint, each of which halved the learning rate.
    """

    def __init__(
        self,
        config: RunConfig,
        vocabulary: Vocabulary,
        ids: Ids,
        text_sha256: str = "",
        clock: Callable[[], float] = time.perf_counter,
        member: int = 1,
    ) -> None:
        self.config, self.vocabulary, self.text_sha256, self.clock = config, vocabulary, text_sha256, clock
        self.rng = np.random.default_rng(config.seed)
        self.step, self.elapsed = 0, 0.0
        sizes = member_config(config, len(vocabulary))
        self.parameters = buffers.zeros((config.members, sizes.size()), np.float32)
        for _ in range(member):  # members are drawn in order
            self.members = initialise(config, len(vocabulary), self.rng, self.parameters)
        self._network = self._make_network()
        self._merged_at = -1
        training_ids, self.held_out = split(ids, config.validation_fraction)
        self.batches = Batches(training_ids, config.sequence_length, config.streams)
        self.optimizer = make_optimizer(config, self._decayed(), dense_matrices(sizes, config.members))
        self.state = self.network.zero_state(config.streams)
        self.best = self.network.flat.copy()
        self.best_loss, self.best_step = math.inf, 0
        self.loss: float | None = None
        self.smoothed = SmoothLoss(config.smoothing)
        self.best_losses = self._losses()
        self.passes: Passes = SerialPasses(self.members, config)
        self.loss_guard = LossGuard(self.batches.unigram_costs())
        self.held_out_guard = HeldOutGuard(config.validate_every)
        self.rollbacks: tuple[Rollback, ...] = ()

    @classmethod
    def resume(
        cls, checkpoint: Checkpoint, ids: Ids, clock: Callable[[], float] = time.perf_counter
    ) -> Training:
        """Continues exactly from `checkpoint`; `ids` must be the same text.

        Raises CheckpointError if the checkpoint was saved only for serving and lacks the tensors for a
        resume.
        """
        training = cls(checkpoint.config, checkpoint.vocabulary, ids, checkpoint.text_sha256, clock)
        training._restore(checkpoint)
        return training

    def begin_with(self, checkpoint: Checkpoint) -> None:
        """Gives a new run the weights of `checkpoint`. Raises ConfigError as `take_over` does."""
        take_over(checkpoint, self.vocabulary, self.parameters)
        self._merged_at = -1
        self.best[...] = self.network.flat

    def roll_back(self, checkpoint: Checkpoint, error: DivergedError) -> None:
        """Returns to an earlier `checkpoint` of this run and halves the learning rate.

        `elapsed` is not reset. Raises CheckpointError as `resume` does.
        """
        loss = error.loss if math.isfinite(error.loss) else None
        rollbacks = (*self.rollbacks, Rollback(error.step, checkpoint.step, loss))
        elapsed = self.elapsed
        self._restore(checkpoint)
        self.rollbacks, self.elapsed = rollbacks, elapsed

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors, progress = checkpoint.tensors, checkpoint.progress
        targets = self._tensors()
        for name, target in targets.items():
            if name not in tensors or tensors[name].shape != target.shape:
                raise CheckpointError(
                    "checkpoint", f"has no tensor {name} of shape {target.shape} to resume from"
                )
            target[...] = tensors[name]
        if len(self.members) == 1:
            self.parameters[0] = checkpoint.parameters
        self._merged_at = -1
        self.step, self.elapsed = checkpoint.step, progress["seconds"]
        self.loss = progress["loss"]
        self.smoothed.restore(progress, self.step)
        self.best_step = progress["best_step"]
        self.best_loss = math.inf if progress["best_loss"] is None else progress["best_loss"]
        self.rng.bit_generator.state = progress["random_state"]
        # checkpoints of earlier versions have neither `best` nor guards
        self.best_losses = progress.get("best", {"seconds": self.elapsed, "loss": None, "smooth_loss": None})
        self.loss_guard.restore(progress.get("loss_guard", {}))
        self.held_out_guard.restore(progress.get("held_out_guard", {}))
        self.rollbacks = tuple(Rollback(*values) for values in progress.get("rollbacks", ()))

    def checkpoint(self) -> Checkpoint:
        """A checkpoint of the current step. All arrays are copies."""
        return Checkpoint(
            config=self.config,
            vocabulary=self.vocabulary,
            step=self.step,
            parameters=self.network.flat.copy(),
            text_sha256=self.text_sha256,
            tensors={name: tensor.copy() for name, tensor in self._tensors().items()},
            progress=self._progress() | {"random_state": self.rng.bit_generator.state},
        )

    def best_checkpoint(self) -> Checkpoint:
        """A checkpoint of the best parameters so far, for serving only."""
        return Checkpoint(
            config=self.config,
            vocabulary=self.vocabulary,
            step=self.best_step,
            parameters=self.best.copy(),
            text_sha256=self.text_sha256,
            progress={**self.best_losses, "as_of": self.best_step, **self._best_progress()},
        )

    @property
    def network(self) -> Network:
        """The members as one network, as of `step`: what is served. For reading only."""
        if len(self.members) > 1 and self._merged_at != self.step:
            merge(self.members, self._network)
            self._merged_at = self.step
        return self._network

    def _make_network(self) -> Network:
        if len(self.members) == 1:
            return self.members[0]
        sizes = network_config(self.config, len(self.vocabulary))
        return Network(sizes, np.zeros(sizes.size(), np.float32))

    @property
    def smooth_loss(self) -> float | None:
        """The moving average of the training loss; None before the first update."""
        return self.smoothed.value

    @property
    def fraction(self) -> float:
        """The completed fraction of the run, 0 to 1, by time if the run ends by time, otherwise by steps."""
        if self.config.minutes:
            return min(1.0, self.elapsed / (60 * self.config.minutes))
        return min(1.0, self.step / self.config.steps)

    @property
    def finished(self) -> bool:
        return self.fraction >= 1.0

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return learning_rate(self.config, self.fraction) * 0.5 ** len(self.rollbacks)

    def update(self) -> None:
        """Makes one update: forward, loss, backward, clip, optimizer. Raises DivergedError."""
        config, window = self.config, self.batches.window(self.step)
        if window.reset:
            self.state[...] = 0
        loss = self.passes.run(window, self.state)
        self.loss_guard.note(self.step, loss)
        self._note_loss(loss)
        gradients = self.passes.gradients
        for gradient in gradients:
            clip(gradient, config.clip, config.clip_at)
        parameters, orthogonalise = self.parameters.reshape(-1), self.passes.orthogonalise
        self.optimizer.update(parameters, gradients.reshape(-1), self.rate, orthogonalise)
        self.step += 1

    def validate(self) -> float | None:
        """The held-out loss if it is due at this step, otherwise None. Updates the best parameters."""
        every = self.config.validate_every
        if not every or len(self.held_out) < 2 or (self.step % every and not self.finished):
            return None
        loss = streaming_loss(self.network, self.held_out)
        self.held_out_guard.note(self.step, loss, self.smooth_loss)
        if self.config.best_by == "validation_loss":
            self._keep_if_best(loss, self._losses())
        return loss

    def samples(self) -> tuple[Sample, ...]:
        """Generates the samples that are due at this step."""
        config, samples = self.config, []
        if (spacing := config.sample_spacing(self.step)) and self.step % spacing == 0:
            samples.append(self._sample(self.network, "sample", config.sample_length))
        if self.finished and config.best_sample_length:
            best = Network(self.network.config, self.best)
            samples.append(self._sample(best, "best", config.best_sample_length))
        return tuple(samples)

    def _sample(self, network: Network, kind: str, length: int) -> Sample:
        sampling = SamplingConfig(temperature=self.config.sample_temperature)
        text = generate(network, self.vocabulary, "", length, sampling, seed=self.config.seed).text
        return Sample(self.step, kind, text)

    def _note_loss(self, loss: float) -> None:
        before = self._losses()  # `loss` was computed before the update, so it belongs to the current step
        self.loss, smooth = loss, self.smoothed.note(loss)
        if self.config.best_by == "smooth_loss":
            self._keep_if_best(smooth, before)

    def _keep_if_best(self, loss: float, losses: dict[str, float | None]) -> None:
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.best_losses = loss, self.step, losses
            np.copyto(self.best, self.network.flat)

    def _decayed(self) -> np.ndarray:
        """1 for weights, which decay, and 0 for biases, which do not; (M*P,)."""
        decayed = np.zeros_like(self.parameters)
        for row in decayed:
            for values in named_views(self.members[0].config, row).values():
                values[...] = values.ndim > 1
        return decayed.reshape(-1)

    def _tensors(self) -> dict[str, np.ndarray]:
        """The tensors that a resume needs in addition to the network's parameters."""
        tensors = {"state": self.state, "best": self.best}
        if len(self.members) > 1:
            tensors["members"] = self.parameters
        return tensors | {f"optimizer.{name}": tensor for name, tensor in self.optimizer.tensors().items()}

    def _losses(self) -> dict[str, float | None]:
        return {"seconds": self.elapsed, "loss": self.loss, "smooth_loss": self.smooth_loss}

    def _best_progress(self) -> dict[str, object]:
        known = math.isfinite(self.best_loss)
        return {"best_loss": self.best_loss if known else None, "best_step": self.best_step}

    def _progress(self) -> dict[str, object]:
        return {
            **self._losses(),
            **self.smoothed.progress(),
            **self._best_progress(),
            "best": self.best_losses,
            "loss_guard": self.loss_guard.progress(),
            "held_out_guard": self.held_out_guard.progress(),
            "rollbacks": [astuple(rollback) for rollback in self.rollbacks],
        }


def train(training: Training) -> Iterator[Progress]:
    """Trains to the end of the run, yielding after each update; a new run first yields step 0."""
    start = training.clock() - training.elapsed
    if training.step == 0:
        yield _report(training)
    while not training.finished:
        training.update()
        training.elapsed = training.clock() - start
        if training.finished:
            training.loss_guard.end(training.step)
        yield _report(training)


def _report(training: Training) -> Progress:
    config, step = training.config, training.step
    validation_loss = training.validate()
    samples = training.samples()
    finished = training.finished
    assignment = training.smoothed.assignment if config.reduction == "sum" else None
    return Progress(
        step=step,
        epoch=max(step - 1, 0) // training.batches.windows_per_epoch,
        characters=step * config.sequence_length * config.streams,
        seconds=training.elapsed,
        learning_rate=training.rate,
        loss=training.loss,
        smooth_loss=training.smooth_loss,
        summed_smooth_loss=None if assignment is None else assignment * config.sequence_length,
        validation_loss=validation_loss,
        record=step % config.record_every == 0 or finished or validation_loss is not None,
        samples=samples,
        finished=finished,
    )
