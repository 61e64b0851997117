"""What a run is asked to do, in one flat record, and the presets that fill it in."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_type_hints

from model.errors import ConfigError

CELL_NAMES = ("elman", "gru", "lstm")
OPTIMIZERS = ("adagrad", "adam", "adamw")
CHOICES: dict[str, tuple[str, ...]] = {
    "cell": CELL_NAMES,
    "initialisation": ("normal", "uniform"),
    "reduction": ("sum", "mean"),
    "optimizer": OPTIMIZERS,
    "clip": ("none", "value", "norm"),
    "schedule": ("constant", "cosine"),
    "best_by": ("smooth_loss", "validation_loss"),
}
RANGES: dict[str, tuple[float, float]] = {
    "hidden": (1, 4096),
    "layers": (1, 8),
    "embedding": (0, 4096),
    "members": (1, 16),
    "sequence_length": (1, 4096),
    "streams": (1, 1024),
    "shards": (1, 64),
    "steps": (0, 1_000_000_000),
    "minutes": (0, 100_000),
    "learning_rate": (0, 10),
    "beta1": (0, 0.9999),
    "beta2": (0, 0.999999),
    "weight_decay": (0, 10),
    "clip_at": (0, 1e6),
    "warmup": (0, 1),
    "final_learning_rate": (0, 1),
    "initial_scale": (0, 10),
    "validation_fraction": (0, 0.5),
    "validate_every": (0, 1_000_000_000),
    "smoothing": (0, 0.99999),
    "record_every": (1, 1_000_000),
    "checkpoint_every": (1, 1_000_000_000),
    "sample_every": (0, 1_000_000_000),
    "sample_temperature": (0, 2),
    "sample_length": (1, 100_000),
    "best_sample_length": (0, 100_000),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a training run, apart from its text.

    Lengths are in characters, losses in nats per character, `minutes` in minutes of training time.
    `warmup` and `final_learning_rate` are fractions: of the whole run, and of `learning_rate`.
    `shards` is the number of parts of a batch that can be worked on at once, each on a core of its own.
    `embedding` is the length of the vector learnt for each character, 0 for one-hot input. `members` networks
    are trained, each reading every batch, and their logits averaged.
    `smoothing` is the share of the old value in the running mean of the loss. Either `steps` or `minutes`
    ends the run: `minutes` > 0 takes precedence. A field that a stored configuration lacks has its default,
    so the defaults of fields that came later are what there was before them.
    """

    preset: str = "gru"
    cell: str = "gru"
    hidden: int = 256
    layers: int = 1
    embedding: int = 0
    members: int = 1
    initialisation: str = "uniform"
    initial_scale: float = 1.0
    sequence_length: int = 64
    streams: int = 32
    shards: int = 2
    steps: int = 4000
    minutes: float = 0.0
    reduction: str = "mean"
    optimizer: str = "adamw"
    learning_rate: float = 6e-3
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1
    clip: str = "norm"
    clip_at: float = 1.0
    schedule: str = "cosine"
    warmup: float = 0.03
    final_learning_rate: float = 0.02
    validation_fraction: float = 0.1
    validate_every: int = 250
    record_every: int = 10
    smoothing: float = 0.98
    checkpoint_every: int = 500
    best_by: str = "validation_loss"
    sample_every: int = 500
    sample_length: int = 400
    sample_temperature: float = 0.8
    best_sample_length: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_field(field.name, getattr(self, field.name))
        if self.steps == 0 and self.minutes == 0:
            raise ConfigError("steps", "is 0 and minutes is 0: give one of them, so that the run ends")
        if self.best_by == "validation_loss" and not (self.validation_fraction and self.validate_every):
            raise ConfigError(
                "best_by", "is validation_loss, which needs validation_fraction and validate_every > 0"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The reverse of `to_dict`. Raises ConfigError for unknown names and wrong types."""
        return cls().replace(**values)

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with some fields changed, converted to each field's own type."""
        hints = get_type_hints(RunConfig)
        for name, value in changes.items():
            if name not in hints:
                raise ConfigError(name, f"is not a field of a run; the fields are: {', '.join(hints)}")
            changes[name] = _convert(name, value, hints[name])
        return dataclasses.replace(self, **changes)


def _convert(name: str, value: Any, kind: type) -> Any:
    if kind is str and isinstance(value, str):
        return value
    if kind is not str and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # not a number, or more than a float holds
            number = value if kind is int and isinstance(value, int) else float(value)
            if kind is float or float(number).is_integer():
                return kind(number)
    raise ConfigError(name, f"must be of type {kind.__name__}. Given: {value!r:.80}")


def _check_field(name: str, value: Any) -> None:
    if name in CHOICES and value not in CHOICES[name]:
        raise ConfigError(name, f"must be one of {', '.join(CHOICES[name])}. Given: {value!r:.80}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(name, f"must be a finite number. Given: {value}")
    if name in RANGES:
        low, high = RANGES[name]
        if not low <= value <= high:
            raise ConfigError(name, f"must be between {low:g} and {high:g}. Given: {value!r:.80}")


PRESETS: dict[str, RunConfig] = {
    # The KTH DD2424 assignment 4, exactly.
    "classic": RunConfig(
        preset="classic",
        cell="elman",
        hidden=100,
        embedding=0,
        initialisation="normal",
        initial_scale=0.01,
        sequence_length=25,
        streams=1,
        shards=1,
        steps=100_000,
        reduction="sum",
        optimizer="adagrad",
        learning_rate=0.1,
        weight_decay=0.0,
        clip="value",
        clip_at=5.0,
        schedule="constant",
        warmup=0.0,
        validation_fraction=0.0,
        validate_every=0,
        record_every=100,
        smoothing=0.999,
        checkpoint_every=5_000,
        best_by="smooth_loss",
        sample_every=10_000,
        sample_length=200,
        sample_temperature=1.0,
        best_sample_length=1000,
    ),
    "gru": RunConfig(embedding=128),
    # Two of them side by side, whose predictions are averaged: the same time on two cores, better text.
    "gru-pair": RunConfig(preset="gru-pair", embedding=128, members=2, shards=1),
}
DEFAULT_PRESET = "gru-pair"  # what a run starts from that names no preset
