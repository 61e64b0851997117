"""Chooses the sizes and the schedule of a run for a text, a training time and a machine.

The rules come from experiments (docs/experiments.md). A larger network that reads the text less often is
better than a smaller one that reads it more often, provided that it can read a few million characters.
Several networks are better than one if each can read enough. A short text is soon memorised, so it needs a
high weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from model.batches import windows_per_epoch
from model.cells import CELLS
from model.config import DEFAULT_PRESET, PRESETS, RunConfig
from model.errors import ConfigError

# two cores of a typical machine: the seconds of a call, and the floating-point operations per second of
# products
CORES, CALL_SECONDS, FLOPS = 2, 9e-6, 50e9

PLANNED = "planned"  # `preset` of a run whose sizes were chosen here
PROBED_UNITS = 256  # units of the network whose speed is measured to choose the sizes
HELD_OUT = 100_000  # maximum number of held-out characters: enough to measure a loss
MEMBERS = 8  # maximum number of members; more improve the loss only a little
ALONE = 5e5  # characters read, below which a single network is better than several
ENOUGH = 6e6  # characters that each of several networks should read, for a text of a million
DECAY = 0.03  # weight decay of AdamW per pass through the text
OFTEN = 10  # passes through the text above which AdamW and a higher weight decay are used
WINDOWS = 12  # minimum number of windows per stream and epoch
SMALLER = ((64, 5e4), (128, 2e5), (256, math.inf))  # (units, maximum number of characters read)

SpeedOf = Callable[[RunConfig], float]  # characters per second of each network of a configuration


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
    """The default preset, adapted to the length of the text, with the fields in `asked` changed."""
    return changed(PRESETS[DEFAULT_PRESET].replace(**shape(characters)), asked)


def suited(
    characters: int, asked: Mapping[str, Any], cores: int, speed_of: SpeedOf
) -> tuple[RunConfig, float]:
    """A configuration for a text of `characters` characters and a time, and the speed of each network.

    The fields in `asked`, which include `minutes`, are used unchanged. Raises ConfigError.
    """
    minutes = usual(characters, asked).minutes
    default = usual(characters, {"preset": PLANNED, "minutes": minutes})
    probed = default.replace(hidden=PROBED_UNITS, members=min(cores, MEMBERS))
    speed = speed_of(probed)
    chosen = default.replace(**sizes(characters, 60 * minutes * speed, cores))
    config = changed(chosen, asked)
    if work_of(config) == work_of(probed):  # no need to measure again
        speed *= min(1.0, cores / config.members)
    else:
        speed = speed_of(config)
    return changed(chosen.replace(**cadence(updates(config, speed))), asked), speed


def work_of(config: RunConfig) -> tuple[object, ...]:
    """The settings that determine how long an update of one network takes on one core."""
    network = config.cell, config.hidden, config.layers, config.embedding
    return *network, config.sequence_length, config.streams, config.shards, config.optimizer


def shape(characters: int) -> dict[str, Any]:
    """Streams that are long enough to benefit from carried state, and a held-out part of limited length."""
    length = PRESETS[DEFAULT_PRESET].sequence_length
    streams = max(1, min(32, characters // (WINDOWS * length)))
    return {"streams": streams, "validation_fraction": min(0.1, HELD_OUT / characters)}


def sizes(characters: int, budget: float, cores: int) -> dict[str, Any]:
    """Streams long enough to benefit from carried state, and a held-out part of limited length."""
    if cores == 1 or budget < ALONE:
        return {"hidden": units(budget * cores), "members": 1, "shards": min(cores, MEMBERS)}
    enough = ENOUGH * math.sqrt(characters / 1e6)
    members = max(min(cores, MEMBERS), min(MEMBERS, round(budget * cores / enough)))
    passes = budget * cores / members / characters
    chosen = {"hidden": PROBED_UNITS, "members": members, "shards": 1}
    return chosen | (small_weights(passes) if passes > OFTEN else {})


def small_weights(passes: float) -> dict[str, Any]:
    """Units and members; `budget` is the characters that a network of 256 units can read per core."""
    known = PRESETS["gru-pair"]
    decay = min(1.0, DECAY * passes)
    return {
        "optimizer": known.optimizer,
        "learning_rate": known.learning_rate,
        "weight_decay": round(decay, 2),
    }


def units(budget: float) -> int:
    """The units of a single network; `budget` is how many characters it could read with 256 units."""
    return next(count for count, limit in SMALLER if budget <= limit)


def updates(config: RunConfig, speed: float) -> float:
    """The number of updates of a run that ends by time, at `speed` characters per second."""
    return 60 * config.minutes * speed / (config.streams * config.sequence_length)


def cadence(updates: float) -> dict[str, Any]:
    """About 40 measurements, 20 checkpoints and 10 samples in a run of `updates` updates."""
    every = {"validate_every": updates / 40, "checkpoint_every": updates / 20, "sample_every": updates / 10}
    return {name: rounded(value) for name, value in every.items()}


def rounded(value: float) -> int:
    """`value` rounded down to one significant digit, at least 10."""
    if value < 10:
        return 10
    unit: int = 10 ** int(math.log10(value))
    return int(value // unit * unit)


def check_apart(members: int) -> None:
    """Raises ConfigError if there are too few members to train separately."""
    if members < 2:
        raise ConfigError("members", f"must be at least 2 to train members separately. Given: {members}")


def check_length(config: RunConfig, characters: int) -> None:
    """Raises TextError if a text of `characters` characters is too short for `config`."""
    held_out = int(characters * config.validation_fraction)
    windows_per_epoch(characters - held_out, config.sequence_length, config.streams)


def expected_seconds(config: RunConfig, distinct: int) -> float:
    """An estimate of the seconds that a run takes on two cores of a typical machine."""
    if config.minutes:
        return 60 * config.minutes
    characters = config.steps * config.sequence_length * config.streams
    return characters / expected_speed(config, distinct)


def expected_speed(config: RunConfig, distinct: int) -> float:
    """An estimate of the characters per second of each network on two cores of a typical machine.

    It has a fixed cost for each step of a layer, and the floating-point operations of the products.
    """
    gates = CELLS[config.cell].gates
    products = (2 * config.layers - 1) * gates * config.hidden**2 + config.hidden * distinct
    calls = CALL_SECONDS * config.layers * gates / config.streams
    operations = 6 * products + _operations_of_muon(config)
    alone = min(config.shards, CORES) / (calls + operations / FLOPS)
    return alone * min(1.0, CORES / config.members)


def _operations_of_muon(config: RunConfig) -> float:
    """Muon's operations per character; two of the three products of an iteration are half the work."""
    if config.optimizer != "muon":
        return 0.0
    blocks = (2 * config.layers - 1) * CELLS[config.cell].gates
    iterations = config.muon_iterations * blocks * 2 * 2 * config.hidden**3
    return iterations / (config.streams * config.sequence_length)
