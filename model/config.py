"""The configuration of a run: one flat dataclass of settings, and the presets."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from model.cells import CELLS
from model.errors import ConfigError

MAX_SAMPLES = 1000  # samples of a run; a longer run writes them less often
MAX_SAMPLED_CHECKPOINTS = 100  # checkpoints of a run that are kept because it wrote a sample there


@dataclass(frozen=True)
class Setting:
    """The description of one setting. The command line, the HTTP schema and the page are generated from it.

    Attributes:
        kind: int, float or str.
        help: what it sets, without a full stop.
        low, high: the range of a number, inclusive.
        choices: the allowed values of a string; empty if any string is allowed.
        label: its name in the page's form; the form leaves out a setting without one.
    """

    kind: type
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: Collection[str] = ()
    label: str = ""

    def convert(self, name: str, value: Any) -> Any:
        """`value`, which may be a string from a command line, as `kind`. Raises ConfigError."""
        if self.kind is str and isinstance(value, str):
            return value
        if self.kind is not str and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            with contextlib.suppress(ValueError, OverflowError):  # not a number, or too large for a float
                number = value if self.kind is int and isinstance(value, int) else float(value)
                if self.kind is float or float(number).is_integer():
                    return self.kind(number)
        raise ConfigError(name, f"must be of type {self.kind.__name__}. Given: {value!r:.80}")

    def check(self, name: str, value: Any) -> None:
        """Raises ConfigError for a value that is out of range or not one of the choices."""
        if self.choices and value not in self.choices:
            raise ConfigError(name, f"must be one of {', '.join(self.choices)}. Given: {value!r:.80}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(name, f"must be a finite number. Given: {value}")
        if self.kind is not str and not self.low <= value <= self.high:
            raise ConfigError(name, f"must be between {self.low:g} and {self.high:g}. Given: {value!r:.80}")


def setting(default: Any, help: str, low: float = -math.inf, high: float = math.inf, **more: Any) -> Any:
    """A field of RunConfig, with its description."""
    known = Setting(type(default), help, low, high, **more)
    return dataclasses.field(default=default, metadata={"setting": known})


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a training run, apart from its text.

    Lengths are in characters, losses in nats per character. A field missing from a stored configuration gets
    its default, so the default of a new field must be what earlier versions did.
    """

    preset: str = setting("gru", "Preset that the other settings start from")
    cell: str = setting("gru", "Recurrent cell", choices=CELLS, label="Cell")
    hidden: int = setting(256, "Hidden units per layer", 1, 4096, label="Units")
    layers: int = setting(1, "Stacked layers", 1, 8, label="Layers")
    embedding: int = setting(0, "Length of the embedding of each character, 0 for one-hot input", 0, 4096)
    members: int = setting(1, "Networks trained side by side, whose logits are averaged", 1, 16)
    initialisation: str = setting(
        "uniform", "Distribution that weights are drawn from", choices=("normal", "uniform")
    )
    initial_scale: float = setting(
        1.0, "Standard deviation (normal), or factor of 1/sqrt(hidden) (uniform)", 0, 10
    )
    sequence_length: int = setting(64, "Truncated BPTT length, in characters", 1, 4096)
    streams: int = setting(32, "Positions in the text that are read in parallel", 1, 1024)
    shards: int = setting(2, "Parts of a batch that are computed in parallel, each on its own core", 1, 64)
    steps: int = setting(4000, "Number of updates, 0 to end by minutes", 0, 1_000_000_000)
    minutes: float = setting(
        0.0, "Minutes of training; above 0, the run ends by time instead of steps", 0, 100_000
    )
    reduction: str = setting(
        "mean", "Whether the loss of a sequence is summed or averaged", choices=("sum", "mean")
    )
    optimizer: str = setting("adamw", "Optimizer", choices=("adagrad", "adam", "adamw", "muon"))
    learning_rate: float = setting(6e-3, "Highest learning rate", 0, 10, label="Learning rate")
    beta1: float = setting(0.9, "Adam's decay of the mean gradient", 0, 0.9999)
    beta2: float = setting(0.99, "Adam's decay of the mean squared gradient", 0, 0.999999)
    weight_decay: float = setting(0.1, "Decoupled weight decay of AdamW and Muon", 0, 10)
    muon_momentum: float = setting(0.95, "Muon's decay of the summed gradient", 0, 0.9999)
    muon_scale: float = setting(0.2, "Root mean square of Muon's step, as a factor of the rate", 0, 10)
    muon_iterations: int = setting(3, "Newton-Schulz iterations per update of Muon", 1, 10)
    clip: str = setting("norm", "How gradients are clipped", choices=("none", "value", "norm"))
    clip_at: float = setting(1.0, "Limit at which gradients are clipped", 0, 1e6)
    schedule: str = setting("cosine", "Schedule of the learning rate", choices=("constant", "cosine"))
    warmup: float = setting(0.03, "Fraction of the run during which the learning rate rises", 0, 1)
    final_learning_rate: float = setting(0.02, "Final learning rate, as a fraction of the highest", 0, 1)
    validation_fraction: float = setting(0.1, "Fraction of the text held out", 0, 0.5)
    validate_every: int = setting(250, "Steps between held-out losses, 0 for none", 0, 1_000_000_000)
    record_every: int = setting(10, "Steps between points of the loss curve", 1, 1_000_000)
    smoothing: float = setting(0.98, "Weight of the old value in the running mean of the loss", 0, 0.99999)
    checkpoint_every: int = setting(500, "Steps between checkpoints", 1, 1_000_000_000)
    best_by: str = setting(
        "validation_loss",
        "Loss by which the best model is chosen",
        choices=("smooth_loss", "validation_loss"),
    )
    sample_every: int = setting(
        500, "Steps between samples, 0 for none; after 1,000 samples the steps grow", 0, 1_000_000_000
    )
    sample_length: int = setting(400, "Characters per sample", 1, 100_000)
    sample_temperature: float = setting(0.8, "Temperature of the samples", 0, 2)
    best_sample_length: int = setting(
        1000, "Characters of the best model's sample at the end, 0 for none", 0, 100_000
    )
    seed: int = setting(0, "Seed of weights and samples", 0, 2**63 - 1, label="Seed")

    def __post_init__(self) -> None:
        for name, known in SETTINGS.items():
            known.check(name, getattr(self, name))
        if self.steps == 0 and self.minutes == 0:
            raise ConfigError("steps", "is 0 and minutes is 0: set one of them, so that the run ends")
        if self.best_by == "validation_loss" and not (self.validation_fraction and self.validate_every):
            raise ConfigError(
                "best_by", "is validation_loss, which needs validation_fraction and validate_every > 0"
            )

    def sample_spacing(self, step: int, limit: int = MAX_SAMPLES) -> int:
        """Steps between samples of a run that is at `step`, 0 for none.

        This is `sample_every`, doubled until there are at most `limit` samples up to `step`.
        """
        spacing = self.sample_every
        while spacing and step > limit * spacing:
            spacing *= 2
        return spacing

    def to_dict(self) -> dict[str, Any]:
        """The settings by name, as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of `to_dict`. Raises ConfigError for unknown names, wrong types and invalid values."""
        return cls().replace(**values)

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with some fields changed, converted to their types. Raises ConfigError like `from_dict`."""
        for name, value in changes.items():
            if name not in SETTINGS:
                raise ConfigError(name, f"is not a field of a run; the fields are: {', '.join(SETTINGS)}")
            changes[name] = SETTINGS[name].convert(name, value)
        return dataclasses.replace(self, **changes)


SETTINGS: dict[str, Setting] = {
    field.name: field.metadata["setting"] for field in dataclasses.fields(RunConfig)
}
PRESETS: dict[str, RunConfig] = {
    # exactly KTH DD2424, assignment 4
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
    # two networks whose logits are averaged: better text, in the same time on two cores
    "gru-pair": RunConfig(preset="gru-pair", embedding=128, members=2, shards=1),
    # the same, with Muon for U and W: better text after the same time
    "gru-pair-muon": RunConfig(
        preset="gru-pair-muon",
        embedding=128,
        members=2,
        shards=1,
        optimizer="muon",
        learning_rate=0.01,
    ),
}
DEFAULT_PRESET = "gru-pair-muon"
