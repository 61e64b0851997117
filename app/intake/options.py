"""Parses and checks the options of a new run: name, preset, and single settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.errors import InvalidRequestError, shortened
from app.intake.planning import cadence
from app.store.records import RUN_NAME
from model.batches import windows_per_epoch
from model.config import RunConfig
from model.errors import ConfigError

LONGEST_LICENCE = 200
MAX_EPOCHS = 1_000_000
LONGEST_GROUP = 61  # characters of a name, so that `.16` fits behind it


class Options(NamedTuple):
    """The options of a new run.

    Attributes:
        epochs: passes through the training text, an alternative to `steps`.
        apart: whether to train each member of the ensemble as a separate run.
        overrides: the settings that replace those of the preset.
    """

    name: str | None
    preset: str | None
    encoding: str
    licence: str
    priority: int
    epochs: float | None
    apart: bool
    overrides: dict[str, Any]

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Parses options by name; others become `overrides`. Raises ConfigError, InvalidRequestError."""
        values = dict(given)
        name = values.pop("name", None)
        if name is not None and not (isinstance(name, str) and RUN_NAME.fullmatch(name)):
            raise InvalidRequestError(
                "name",
                "must be 1 to 64 characters of a-z, 0-9, '.', '_' and '-', starting with a letter or digit. "
                f"Given: {shortened(name)}",
            )
        apart = _apart(values.pop("apart", False))
        if apart and name is not None and len(name) > LONGEST_GROUP:
            raise InvalidRequestError(
                "name",
                f"must have at most {LONGEST_GROUP} characters with apart, as the names of the members are "
                f"longer. Given: {len(name)}",
            )
        texts = {key: values.pop(key, "") for key in ("preset", "encoding", "licence")}
        for key, value in texts.items():
            if not isinstance(value, str) or len(value) > LONGEST_LICENCE:
                raise ConfigError(key, f"must be a text of at most {LONGEST_LICENCE} characters")
        return cls(
            name=name,
            preset=texts["preset"] or None,
            encoding=texts["encoding"] or "utf-8",
            licence=texts["licence"],
            priority=_priority(values.pop("priority", 0)),
            epochs=_epochs(values),
            apart=apart,
            overrides=values,
        )


def _apart(given: Any) -> bool:
    if str(given).lower() not in ("true", "1", "false", "0"):
        raise ConfigError("apart", f"must be true or false. Given: {given!r:.40}")
    return str(given).lower() in ("true", "1")


def _priority(given: Any) -> int:
    try:
        priority = int(str(given)[:20])
    except ValueError:
        priority = 1001
    if not -1000 <= priority <= 1000 or isinstance(given, (bool, float)):
        raise ConfigError("priority", f"must be a whole number from -1000 to 1000. Given: {given!r:.40}")
    return priority


def _epochs(values: dict[str, Any]) -> float | None:
    given = values.pop("epochs", None)
    if given is None:
        return None
    for other in ("steps", "minutes"):
        if other in values:
            raise ConfigError("epochs", f"cannot be given with {other}: each of them ends the run")
    try:
        epochs = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):  # not a number, or too large for a float
        epochs = math.nan
    if not 0 < epochs <= MAX_EPOCHS:
        raise ConfigError("epochs", f"must be a number above 0, at most {MAX_EPOCHS:,}. Given: {given!r:.40}")
    return epochs


def by_epochs(config: RunConfig, options: Options, characters: int) -> RunConfig:
    """`config` with the number of steps for `options.epochs` of a text of `characters` characters.

    Without `epochs` it is unchanged. Raises TextError if the text is too short for one window, ConfigError
    for too many steps.
    """
    if options.epochs is None:
        return config
    learnt = characters - int(characters * config.validation_fraction)
    steps = max(1, round(options.epochs * windows_per_epoch(learnt, config.sequence_length, config.streams)))
    return config.replace(minutes=0.0, steps=steps, **cadence(steps) | options.overrides)
