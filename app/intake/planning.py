"""Chooses sizes and a schedule for a text, a time and a machine, and says what to expect of them.

The rules come from what was tried (docs/experiments.md): a larger network that reads the text less often is
better than a smaller one that reads it more often, as long as it can read a few million characters; several
networks side by side beat one, once each has read enough; and a short text is soon known by heart, so there
what counts is to hold the weights small.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.batches import Ids, split, windows_per_epoch
from model.config import PRESETS, RunConfig
from model.ngram import baselines
from model.vocabulary import Vocabulary

# two cores of a common machine: what a call costs, and a product's floating-point operations a second
CORES, CALL_SECONDS, FLOPS = 2, 9e-6, 50e9

PLANNED = "planned"  # the preset's name of a run that was planned
HELD_OUT = 100_000  # characters are enough to measure a loss by, and soon read
MEMBERS = 8  # more side by side gave little
ALONE = 5e5  # characters, below which a network has not learnt enough for others beside it to help
ENOUGH = 6e6  # characters that each of several should read of a text of a million
DECAY = 0.03  # weight decay for each time the text is read
WINDOWS = 12  # least windows a stream is read in before it starts afresh
SMALLER = ((64, 5e4), (128, 2e5), (256, math.inf))  # units, up to how many characters

BY_HEART = 12  # times a text is read before its held-out loss rises
# millions of characters read by each network, of a text of a million -> their loss over the 5-gram's; of two
# networks, but the last, for which there is time enough to train six
RELATIVE = ((0.1, 1.38), (0.3, 1.14), (0.9, 0.99), (5.6, 0.87), (10.9, 0.835))

SpeedOf = Callable[[RunConfig, Vocabulary, Ids], float]


@dataclass(frozen=True)
class Plan:
    """What will be trained, and what to expect.

    Attributes:
        config: of the run.
        characters_per_second: measured here, of each network.
        passes: how often each network reads the text it learns from.
        ngram_loss, expected_loss: of a 5-gram, and of the best checkpoint, on the held-out text, in nats per
            character.
        ends_at: Unix time.
    """

    config: RunConfig
    characters_per_second: float
    passes: float
    ngram_loss: float
    expected_loss: float
    ends_at: float

    def described(self) -> list[str]:
        """Lines for people."""
        config = self.config
        many = f"{config.members} networks side by side, each of" if config.members > 1 else "One network of"
        read = self.characters_per_second * config.minutes * 60
        end = time.strftime("%H:%M:%S", time.localtime(self.ends_at))
        return [
            f"{many} {config.hidden} {config.cell.upper()} units, reading {read / 1e6:.1f} million "
            f"characters: the text {self.passes:.1f} times.",
            f"On the part held out, a 5-gram reaches {self.ngram_loss:.2f} nats per character; "
            f"expect about {self.expected_loss:.2f}.",
            f"It ends at about {end}.",
        ]


def make_plan(text: str, asked: Mapping[str, Any], cores: int, speed_of: SpeedOf) -> Plan:
    """A plan for `text` and `asked["minutes"]` on so many cores; other fields in `asked` stay as they are.

    `speed_of` tells how many characters a second each network of a configuration reads here.
    """
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    minutes = float(asked["minutes"])
    config = PRESETS["gru-pair"].replace(preset=PLANNED, minutes=minutes, **shape(len(ids)))
    probed = config.replace(hidden=256, members=min(cores, MEMBERS))
    speed = speed_of(probed, vocabulary, ids)
    config = config.replace(**sizes(len(ids), 60 * minutes * speed, cores)).replace(**asked)
    if work_of(config) == work_of(probed):  # then to measure again would only take from the time there is
        speed *= min(1.0, cores / config.members)
    else:
        speed = speed_of(config, vocabulary, ids)
    config = config.replace(**cadence(updates(config, speed))).replace(**asked)
    training_ids, _ = split(ids, config.validation_fraction)
    passes = 60 * minutes * speed / len(training_ids)
    ngram_loss = baselines(ids, len(vocabulary), config.validation_fraction)["5-gram"]
    expected = ngram_loss * relative_loss(len(training_ids), 60 * minutes * speed)
    return Plan(config, speed, passes, ngram_loss, expected, time.time() + 60 * minutes)


def work_of(config: RunConfig) -> tuple[object, ...]:
    """What decides how long an update takes one network alone on its core."""
    network = config.cell, config.hidden, config.layers, config.embedding
    return *network, config.sequence_length, config.streams, config.shards, config.optimizer


def shape(characters: int) -> dict[str, Any]:
    """How a text is cut up: streams long enough to carry a state, and a held-out part that is soon read."""
    length = PRESETS["gru-pair"].sequence_length
    streams = max(1, min(32, characters // (WINDOWS * length)))
    return {"streams": streams, "validation_fraction": min(0.1, HELD_OUT / characters)}


def sizes(characters: int, budget: float, cores: int) -> dict[str, Any]:
    """Units and networks for a text, given how many characters one network of 256 units a core could read."""
    if cores == 1 or budget < ALONE:
        return {"hidden": units(budget * cores), "members": 1, "shards": min(cores, MEMBERS)}
    enough = ENOUGH * math.sqrt(characters / 1e6)
    members = max(min(cores, MEMBERS), min(MEMBERS, round(budget * cores / enough)))
    passes = budget * cores / members / characters
    decay = min(1.0, max(PRESETS["gru-pair"].weight_decay, DECAY * passes))
    return {"hidden": 256, "members": members, "shards": 1, "weight_decay": round(decay, 2)}


def units(budget: float) -> int:
    """Units of a single network that could read so many characters if it had 256."""
    return next(count for count, most in SMALLER if budget <= most)


def updates(config: RunConfig, speed: float) -> float:
    """How many updates a run by time takes at so many characters a second."""
    return 60 * config.minutes * speed / (config.streams * config.sequence_length)


def cadence(updates: float) -> dict[str, Any]:
    """Some forty measurements, twenty checkpoints and ten samples over a run of so many updates."""
    every = {"validate_every": updates / 40, "checkpoint_every": updates / 20, "sample_every": updates / 10}
    return {name: rounded(value) for name, value in every.items()}


def rounded(value: float) -> int:
    """`value` with one digit that counts, at least 10: steps that people can read."""
    if value < 10:
        return 10
    unit: int = 10 ** int(math.log10(value))
    return int(value // unit * unit)


def relative_loss(characters: float, read: float) -> float:
    """The expected loss on held-out text in units of a 5-gram's, as measured (docs/experiments.md).

    `characters` is the text to learn from, `read` what each network reads of it. Reading a text again and
    again ends in knowing it by heart; and a 5-gram needs more text than a network to become good.
    """
    millions = min(read, BY_HEART * characters) / 1e6
    points, losses = np.log([x for x, _ in RELATIVE]), [loss for _, loss in RELATIVE]
    loss = float(np.interp(math.log(millions), points, losses))
    return loss * math.pow(characters / 1e6, 0.04)


def check_length(config: RunConfig, characters: int) -> None:
    """Raises TextError if a text of so many characters is too short for a run of `config`."""
    held_out = int(characters * config.validation_fraction)
    windows_per_epoch(characters - held_out, config.sequence_length, config.streams)


def expected_seconds(config: RunConfig, distinct: int) -> float:
    """About how long a run takes on two cores, alone: a cost for each step of a layer, and its products."""
    if config.minutes:
        return 60 * config.minutes
    characters = config.steps * config.sequence_length * config.streams
    return characters * math.ceil(config.members / CORES) / expected_speed(config, distinct)


def expected_speed(config: RunConfig, distinct: int) -> float:
    """About how many characters a second one network reads on one core, as measured on a common machine."""
    gates = {"elman": 1, "gru": 3, "lstm": 4}[config.cell]
    products = (2 * config.layers - 1) * gates * config.hidden**2 + config.hidden * distinct
    calls = CALL_SECONDS * config.layers * gates / config.streams
    return min(config.shards, CORES) / (calls + 6 * products / FLOPS)
