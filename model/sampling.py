"""From logits to the next character: temperature, top-k, top-p, min-p, penalties; many rows at once.

A row's choice depends on its own logits, settings and random stream alone, to the bit: every operation is
elementwise or along the row. Greedy is not a case of its own: at an inverse temperature of 1e30 all but the
likeliest character have weight 0, and a uniform number of 0 picks the first of equals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from model.cells import Array
from model.errors import ConfigError

GREEDY = 1e30
HIGHEST_UNIFORM = np.float32(1 - 2**-23)  # times any float32 total, it still rounds to less than the total
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_k": (-1, 2**31 - 1),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0, 100),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}
ABOVE_ZERO = ("top_p", "repetition_penalty")


@dataclass(frozen=True)
class SamplingConfig:
    """How one request's characters are chosen.

    Attributes:
        temperature: logits are divided by it; 0 is greedy.
        top_k: only the k likeliest characters; 0 and -1 mean all.
        top_p: only the likeliest characters that together reach this probability (Holtzman et al., 2020).
        min_p: only characters at least this fraction as likely as the likeliest.
        repetition_penalty: divides the positive and multiplies the negative logits of characters that stand
            in the prompt or the text so far (Keskar et al., 2019); 1 is off.
        frequency_penalty, presence_penalty: taken off a character's logit for each time, and once if ever, it
            stands in the generated text.
        logit_bias: (id, bias) pairs, added to the logits.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in RANGES:
                _check(field.name, getattr(self, field.name))
        for _, bias in self.logit_bias:
            if not -100 <= bias <= 100:
                raise ConfigError("logit_bias", f"must be between -100 and 100. Given: {bias}")

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before the temperature."""
        penalties = (self.repetition_penalty, self.frequency_penalty, self.presence_penalty)
        return penalties != (1.0, 0.0, 0.0) or bool(self.logit_bias)

    @property
    def filters(self) -> bool:
        """Whether some characters are ruled out after the temperature."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def inverse_temperature(self) -> float:
        """1 / temperature; 1e30 for temperatures too small to tell from greedy."""
        return 1 / self.temperature if self.temperature > 1 / GREEDY else GREEDY


def random_stream(seed: int, choice: int = 0) -> np.random.Generator:
    """The random numbers of one choice of a request: PCG64 seeded by (seed, choice)."""
    return np.random.Generator(np.random.PCG64([seed, choice]))


def draw_uniforms(stream: np.random.Generator, sampling: SamplingConfig, count: int) -> NDArray[np.float32]:
    """The next `count` numbers in [0, 1) by which characters are picked; all 0 for a greedy request."""
    if sampling.inverse_temperature == GREEDY:
        return np.zeros(count, np.float32)
    return np.minimum(stream.random(count, dtype=np.float32), HIGHEST_UNIFORM)


@dataclass(frozen=True)
class SamplingBatch:
    """The settings of B rows as arrays, so that each operation is one for all rows it concerns.

    Attributes:
        inverse_temperature: (B, 1).
        filtered: rows, ascending, to which top-k, top-p or min-p apply; `top_k`, `top_p`, `min_p` (F, 1).
        adjusted: rows whose logits are changed before; `repetition`, `frequency`, `presence` (A, 1),
            `bias` (A, K).
    """

    inverse_temperature: Array
    filtered: NDArray[np.intp]
    top_k: Array
    top_p: Array
    min_p: Array
    adjusted: NDArray[np.intp]
    repetition: Array
    frequency: Array
    presence: Array
    bias: Array

    @classmethod
    def of(cls, rows: Sequence[SamplingConfig], characters: int) -> SamplingBatch:
        """The settings of `rows`, for logits over K characters."""
        filtered = [row for row, sampling in enumerate(rows) if sampling.filters]
        adjusted = [row for row, sampling in enumerate(rows) if sampling.adjusts]

        def column(name: str, among: Sequence[int], dtype: type = np.float32) -> Array:
            return np.array([[getattr(rows[row], name)] for row in among], dtype).reshape(-1, 1)

        bias = np.zeros((len(adjusted), characters), np.float32)
        for index, row in enumerate(adjusted):
            for character, value in rows[row].logit_bias:
                bias[index, character] = value
        return cls(
            inverse_temperature=column("inverse_temperature", range(len(rows))),
            filtered=np.array(filtered, np.intp),
            top_k=column("top_k", filtered, np.int64),
            top_p=column("top_p", filtered, np.float64),
            min_p=column("min_p", filtered),
            adjusted=np.array(adjusted, np.intp),
            repetition=column("repetition_penalty", adjusted),
            frequency=column("frequency_penalty", adjusted),
            presence=column("presence_penalty", adjusted),
            bias=bias,
        )

    def adjust(self, logits: Array, seen: Array, generated: Array) -> None:
        """Penalties and bias, in place, on logits (B, K), for the rows that have any.

        `seen` counts each character in prompt and text so far, `generated` in the text alone; both (B, K).
        """
        rows = logits[self.adjusted]
        penalised = np.where(rows > 0, rows / self.repetition, rows * self.repetition)
        rows = np.where(seen[self.adjusted] > 0, penalised, rows)
        counts = generated[self.adjusted]
        logits[self.adjusted] = rows - self.frequency * counts - self.presence * (counts > 0) + self.bias

    def pick(self, logits: Array, uniforms: Array) -> NDArray[np.intp]:
        """The chosen id of each row, (B,), by inversion of the cumulative distribution.

        logits (B, K) float32, used up; uniforms (B, 1) from `draw_uniforms`.
        """
        np.subtract(logits, logits.max(axis=1, keepdims=True), out=logits)
        np.multiply(logits, self.inverse_temperature, out=logits)
        np.exp(logits, out=logits)
        if self.filtered.size:
            logits[self.filtered] = self._filter(logits[self.filtered])
        np.cumsum(logits, axis=1, out=logits)
        chosen: NDArray[np.intp] = np.sum(logits[:, :-1] <= logits[:, -1:] * uniforms, axis=1, dtype=np.intp)
        return chosen

    def _filter(self, weights: Array) -> Array:
        """Zeroes what top-k, min-p and top-p, in this order, exclude among unnormalised probabilities (F, K).

        The likeliest character always stays; of equals, the one with the lower id counts as likelier.
        """
        order = np.argsort(-weights, axis=1, kind="stable")
        ranked = np.take_along_axis(weights, order, axis=1)
        rank = np.arange(weights.shape[1])
        keep = (rank < self.top_k) | (self.top_k <= 0)
        keep &= ranked >= self.min_p * ranked[:, :1]
        ranked = np.where(keep, ranked, 0).astype(np.float64)
        up_to = np.cumsum(ranked, axis=1)
        keep &= (up_to - ranked < self.top_p * up_to[:, -1:]) | (self.top_p >= 1)
        keep[:, 0] = True
        kept = np.zeros_like(keep)
        np.put_along_axis(kept, order, keep, axis=1)
        return np.where(kept, weights, np.float32(0))


def _check(name: str, value: float) -> None:
    low, high = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(name, f"must be a finite number. Given: {value!r}")
    if name in ABOVE_ZERO and value <= 0:
        raise ConfigError(name, f"must be above 0 and at most {high:g}. Given: {value}")
    if not low <= value <= high:
        raise ConfigError(name, f"must be between {low:g} and {high:g}. Given: {value}")
