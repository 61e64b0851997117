"""Predicts the loss of a run and when it ends, before it is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from app.intake.planning import expected_seconds, expected_speed, suited
from app.store.records import MAX_TIME, Status
from app.store.run import Run
from app.store.run_store import RunStore
from model.batches import Ids, split
from model.config import RunConfig
from model.ngram import HELD_OUT, ORDER, ngram_losses
from model.vocabulary import Vocabulary

MEMORISED = 12  # passes through a text after which the held-out loss rises
USUAL_CHARACTERS = 80  # distinct characters of a typical text
# The tables map millions of characters read by each network to a value. They were measured on Shakespeare,
# Python's standard library and random words (docs/experiments.md). After little reading, a network is as good
# as n-grams counted on a smaller number of characters: the minimum and the maximum of that number.
COUNTED_LEAST = ((0.01, 10.0), (0.03, 60.0), (0.1, 5e3), (0.3, 1e5), (0.9, 9e5))
COUNTED_MOST = ((0.01, 100.0), (0.03, 3e3), (0.1, 6e4), (0.3, 6e5), (0.9, 1e9))
# After more reading, it is better than n-grams counted on the whole text: the ratio of the losses.
RATIO_LOW = ((0.1, 1.0), (0.3, 0.96), (0.9, 0.9), (2.7, 0.83), (5.6, 0.80), (10.9, 0.77))
RATIO_HIGH = ((0.9, 1.0), (2.7, 0.98), (10.9, 0.97))

Points = Sequence[tuple[float, float]]
MeasuredSpeed = Callable[[RunConfig, Vocabulary, Ids], float]


class Queue(NamedTuple):
    """The runs that are trained before a new one: their number, and about how many seconds they take."""

    runs: int
    seconds: float


NO_QUEUE = Queue(0, 0.0)


@dataclass(frozen=True)
class Plan:
    """The configuration of a run, and what to expect of it.

    Attributes:
        characters_per_second: measured speed of each network.
        passes: passes of each network through the training text.
        ngram_loss: loss of a 5-gram model on the held-out text, in nats per character.
        expected_loss: the range of the best checkpoint's held-out loss.
        queue: the runs that are trained before this one.
        ends_at: in Unix seconds.
    """

    config: RunConfig
    characters_per_second: float
    passes: float
    ngram_loss: float
    expected_loss: tuple[float, float]
    queue: Queue
    ends_at: float

    def described(self) -> list[str]:
        """The plan as lines of text."""
        config = self.config
        many = (
            f"{config.members} networks side by side, each with" if config.members > 1 else "One network of"
        )
        read = self.characters_per_second * config.minutes * 60
        low, high = self.expected_loss
        end = time.strftime("%H:%M:%S", time.localtime(min(self.ends_at, MAX_TIME)))
        lines = [
            f"{many} {config.hidden} {config.cell.upper()} units, reading {read / 1e6:.1f} million "
            f"characters: the text {self.passes:.1f} times.",
            f"On the held-out part, a 5-gram reaches {self.ngram_loss:.2f} nats per character; "
            f"expect {low:.2f} to {high:.2f}.",
        ]
        if self.queue.runs:
            others = "another run" if self.queue.runs == 1 else f"{self.queue.runs} other runs"
            minutes = self.queue.seconds / 60
            lines.append(f"The worker of this store first trains {others} for about {minutes:.1f} minutes.")
        return [*lines, f"It ends at about {end}."]


def make_plan(
    text: str, asked: Mapping[str, Any], cores: int, measured: MeasuredSpeed, queue: Queue = NO_QUEUE
) -> Plan:
    """A plan for training on `text` for `asked["minutes"]` on `cores` cores.

    Other fields in `asked` are used unchanged. `measured` returns the speed of each network of a
    configuration on this machine, in characters per second. Raises ConfigError, TextError.
    """
    began = time.time()  # the queue gets shorter during the measurements
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    config, speed = suited(len(ids), asked, cores, lambda config: measured(config, vocabulary, ids))
    seconds = 60 * config.minutes
    training_ids, _ = split(ids, config.validation_fraction)
    return Plan(
        config=config,
        characters_per_second=speed,
        passes=seconds * speed / len(training_ids),
        ngram_loss=ngram_losses(ids, _trained(ids, config), len(vocabulary), ORDER)[-1],
        expected_loss=loss_range(ids, _trained(ids, config), len(vocabulary), seconds * speed),
        queue=queue,
        ends_at=max(time.time(), began + queue.seconds) + seconds,
    )


def _trained(ids: Ids, config: RunConfig) -> int:
    """The number of characters to train on; the loss is measured on the rest."""
    return min(len(split(ids, config.validation_fraction or HELD_OUT)[0]), len(ids) - 1)


def expected_loss(text: str, characters: int, config: RunConfig, distinct: int) -> tuple[float, float]:
    """The likely range of the held-out loss of a run's best checkpoint, by `loss_range`.

    Args:
        text: the beginning of the run's text, at least two characters.
        characters: the length of the whole text.
        config: of the run.
        distinct: the number of distinct characters.
    """
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    read = float(config.steps * config.sequence_length * config.streams)
    if config.minutes:
        read = 60 * config.minutes * expected_speed(config, distinct)
    whole = characters * (1 - config.validation_fraction)
    return loss_range(ids, _trained(ids, config), len(vocabulary), read, whole)


def loss_range(ids: Ids, trained: int, distinct: int, read: float, whole: float = 0.0) -> tuple[float, float]:
    """The likely range of the loss on ids[trained:] after training on ids[:trained].

    Each network reads `read` characters. The range is derived from n-gram losses on the same text: on a
    regular text n-grams are good after few characters, and so is a network. More than MEMORISED passes do not
    help. `whole` is the length of the training text if ids[:trained] is only its beginning.
    """
    millions = min(read, MEMORISED * max(trained, whole)) / 1e6

    def of_ngrams(counted: float) -> float:
        used = min(int(counted), trained)
        shorter = np.concatenate((ids[:used], ids[trained:]))
        return min(ngram_losses(shorter, used, distinct, ORDER))

    high = of_ngrams(_at(millions, COUNTED_LEAST)) * _at(millions, RATIO_HIGH)
    low = of_ngrams(_at(millions, COUNTED_MOST)) * _at(millions, RATIO_LOW)
    return low, high


def _at(x: float, points: Points) -> float:
    """The value at `x`, interpolated linearly on logarithmic scales."""
    logarithms = np.log(np.array(points))
    return math.exp(float(np.interp(math.log(x), logarithms[:, 0], logarithms[:, 1])))


def queue_of(store: RunStore) -> Queue:
    """The runs that one worker of the store trains before a new run."""
    before = [
        (run, status)
        for run in store.list()
        if run.control.priority >= 0
        and not run.spec.apart
        and ((status := run.standing).state in ("queued", "training") or status.retry_at is not None)
    ]
    slower = next((_slowness(run, status) for run, status in before if status.characters_per_second), 1.0)
    return Queue(len(before), sum(seconds_left(run, status, slower) for run, status in before))


def _slowness(run: Run, status: Status) -> float:
    """The factor by which the worker is slower than a typical machine."""
    return expected_speed(run.config, USUAL_CHARACTERS) / max(1.0, status.characters_per_second or math.inf)


def seconds_left(run: Run, status: Status, slower: float = 1.0) -> float:
    """An estimate of the remaining training time of a run, in seconds, without its time in the queue."""
    if status.state == "training" and status.expected_end is not None:
        return max(0.0, status.expected_end - status.heartbeat)
    seconds = expected_seconds(run.config, USUAL_CHARACTERS) * (1.0 - status.fraction)
    return seconds if run.config.minutes else seconds * slower
