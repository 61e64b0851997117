"""The search space of a sweep: `hidden=128,256` or `learning_rate=1e-3..1e-2` as Optuna's distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from model.config import SETTINGS
from model.errors import ConfigError

DEFAULT = ("learning_rate=1e-3..2e-2", "weight_decay=0.01..0.5")
LOGARITHMIC = 10  # a range that spans at least this factor is sampled logarithmically
FIXED = ("preset", "validate_every", "validation_fraction", "best_by", "steps", "minutes")  # in all trials


def search_space(given: Sequence[str]) -> dict[str, BaseDistribution]:
    """The distributions of the settings to try, by name. Raises ConfigError."""
    space: dict[str, BaseDistribution] = {}
    for text in given or DEFAULT:
        name, equals, values = text.partition("=")
        if name not in SETTINGS or name in FIXED or not equals or not values:
            raise ConfigError(
                "set", f"must be FIELD=A,B,C or FIELD=LOW..HIGH, for a field to try. Given: {text!r:.80}"
            )
        if name in space:
            raise ConfigError("set", f"has {name} twice: give all of its values in one option")
        low, dots, high = values.partition("..")
        space[name] = _range(name, low, high) if dots else _choice(name, values.split(","))
    return space


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is among those to try."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(distribution, (FloatDistribution, IntDistribution)):
        return bool(distribution.low <= value <= distribution.high)
    return False


def _value(name: str, text: str) -> Any:
    value = SETTINGS[name].convert(name, text.strip())
    SETTINGS[name].check(name, value)
    return value


def _choice(name: str, values: Sequence[str]) -> BaseDistribution:
    return CategoricalDistribution([_value(name, value) for value in values])


def _range(name: str, low: str, high: str) -> BaseDistribution:
    if SETTINGS[name].kind is str:
        raise ConfigError(name, f"is a word, so it has no range: list the values. Given: {low}..{high}")
    first, last = _value(name, low), _value(name, high)
    if first >= last:
        raise ConfigError(name, f"needs a range whose start is below its end. Given: {low}..{high}")
    logarithmic = first > 0 and last / first >= LOGARITHMIC
    kind = IntDistribution if SETTINGS[name].kind is int else FloatDistribution
    return kind(first, last, log=logarithmic)
