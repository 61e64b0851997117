"""Chooses the sizes and the schedule of a run for a text, a time and a machine.

The rules come from experiments (docs/experiments.md). A larger network that reads the text less often beats a
smaller one that reads it more often, as long as it can read a few million characters. Several networks beat
one, once each has read enough. A short text is soon memorised, so there the weights must be kept small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from model.batches import windows_per_epoch
from model.cells import CELLS
from model.config import DEFAULT_PRESET, PRESETS, RunConfig
from model.errors import ConfigError

# two cores of a common machine: the cost of a call, and a product's floating-point operations a second
CORES, CALL_SECONDS, FLOPS = 2, 9e-6, 50e9

PLANNED = "planned"  # the preset's name of a run whose sizes were chosen for a time
PROBED_UNITS = 256  # of the network whose speed decides about sizes
HELD_OUT = 100_000  # characters are enough to measure a loss by, and soon read
MEMBERS = 8  # more networks gave little
ALONE = 5e5  # characters, below which a network has not learnt enough for others to help it
ENOUGH = 6e6  # characters that each of several networks should read, of a text of a million
DECAY = 0.03  # weight decay of AdamW for each time that the text is read
OFTEN = 10  # times a text is read, above which it is trained with AdamW and a higher weight decay
WINDOWS = 12  # least number of windows in which a stream is read before it starts afresh
SMALLER = ((64, 5e4), (128, 2e5), (256, math.inf))  # units, up to how many characters

SpeedOf = Callable[[RunConfig], float]  # characters a second that each network of a configuration reads


def make_config(preset: str, asked: Mapping[str, Any]) -> RunConfig:
    """The preset with the fields in `asked` changed. Raises ConfigError."""
    if preset not in PRESETS:
        raise ConfigError("preset", f"must be one of {', '.join(PRESETS)}. Given: {preset!r}")
    return changed(PRESETS[preset], asked)


def changed(config: RunConfig, asked: Mapping[str, Any]) -> RunConfig:
    """`config` with the fields in `asked` changed; `steps` without `minutes` ends the run by steps."""
    by_steps = {"minutes": 0.0} if "steps" in asked else {}
    return config.replace(**by_steps | dict(asked))


def usual(characters: int, asked: Mapping[str, Any]) -> RunConfig:
    """The default preset, cut to a text of so many characters, with the fields in `asked` changed."""
    return changed(PRESETS[DEFAULT_PRESET].replace(**shape(characters)), asked)


def suited(
    characters: int, asked: Mapping[str, Any], cores: int, speed_of: SpeedOf
) -> tuple[RunConfig, float]:
    """A configuration for a text of so many characters and a time, and the speed of each of its networks.

    The fields in `asked`, of which `minutes` is one, are never changed. Raises ConfigError.
    """
    minutes = usual(characters, asked).minutes
    default = usual(characters, {"preset": PLANNED, "minutes": minutes})
    probed = default.replace(hidden=PROBED_UNITS, members=min(cores, MEMBERS))
    speed = speed_of(probed)
    chosen = default.replace(**sizes(characters, 60 * minutes * speed, cores))
    config = changed(chosen, asked)
    if work_of(config) == work_of(probed):  # measuring it again would only take time from the training
        speed *= min(1.0, cores / config.members)
    else:
        speed = speed_of(config)
    return changed(chosen.replace(**cadence(updates(config, speed))), asked), speed


def work_of(config: RunConfig) -> tuple[object, ...]:
    """What decides how long an update takes one network alone on its core."""
    network = config.cell, config.hidden, config.layers, config.embedding
    return *network, config.sequence_length, config.streams, config.shards, config.optimizer


def shape(characters: int) -> dict[str, Any]:
    """How a text is cut up: streams long enough to carry a state, and a held-out part that is soon read."""
    length = PRESETS[DEFAULT_PRESET].sequence_length
    streams = max(1, min(32, characters // (WINDOWS * length)))
    return {"streams": streams, "validation_fraction": min(0.1, HELD_OUT / characters)}


def sizes(characters: int, budget: float, cores: int) -> dict[str, Any]:
    """Units and networks for a text, given how many characters one network of 256 units a core could read."""
    if cores == 1 or budget < ALONE:
        return {"hidden": units(budget * cores), "members": 1, "shards": min(cores, MEMBERS)}
    enough = ENOUGH * math.sqrt(characters / 1e6)
    members = max(min(cores, MEMBERS), min(MEMBERS, round(budget * cores / enough)))
    passes = budget * cores / members / characters
    chosen = {"hidden": PROBED_UNITS, "members": members, "shards": 1}
    return chosen | (small_weights(passes) if passes > OFTEN else {})


def small_weights(passes: float) -> dict[str, Any]:
    """For a text that is read so often: AdamW, and a weight decay with which Muon would learn too little."""
    known = PRESETS["gru-pair"]
    decay = min(1.0, DECAY * passes)
    return {
        "optimizer": known.optimizer,
        "learning_rate": known.learning_rate,
        "weight_decay": round(decay, 2),
    }


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
    """`value` with one significant digit, at least 10: steps that people can read."""
    if value < 10:
        return 10
    unit: int = 10 ** int(math.log10(value))
    return int(value // unit * unit)


def check_apart(members: int) -> None:
    """Raises ConfigError if there are too few members to train apart."""
    if members < 2:
        raise ConfigError("members", f"must be at least 2 to train members separately. Given: {members}")


def check_length(config: RunConfig, characters: int) -> None:
    """Raises TextError if a text of so many characters is too short for a run of `config`."""
    held_out = int(characters * config.validation_fraction)
    windows_per_epoch(characters - held_out, config.sequence_length, config.streams)


def expected_seconds(config: RunConfig, distinct: int) -> float:
    """About how long a run takes on two cores, alone: a cost for each step of a layer, and its products."""
    if config.minutes:
        return 60 * config.minutes
    characters = config.steps * config.sequence_length * config.streams
    return characters / expected_speed(config, distinct)


def expected_speed(config: RunConfig, distinct: int) -> float:
    """About how many characters a second each network reads, as measured on two cores of a common machine."""
    gates = CELLS[config.cell].gates
    products = (2 * config.layers - 1) * gates * config.hidden**2 + config.hidden * distinct
    calls = CALL_SECONDS * config.layers * gates / config.streams
    operations = 6 * products + _operations_of_muon(config)
    alone = min(config.shards, CORES) / (calls + operations / FLOPS)
    return alone * min(1.0, CORES / config.members)


def _operations_of_muon(config: RunConfig) -> float:
    """Its products, for each character of an update: two of the three in an iteration are half the work."""
    if config.optimizer != "muon":
        return 0.0
    blocks = (2 * config.layers - 1) * CELLS[config.cell].gates
    iterations = config.muon_iterations * blocks * 2 * 2 * config.hidden**3
    return iterations / (config.streams * config.sequence_length)
