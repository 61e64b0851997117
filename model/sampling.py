"""Chooses the next character from the logits, for many rows: temperature, filters and penalties.

A row's choice depends only on its own logits, settings and random stream, to the bit, because every operation
is elementwise or along the row. Greedy decoding needs no code of its own: at an inverse temperature of 1e30
all characters but the most likely have weight 0, and a uniform number of 0 picks the first among equals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.cells import Array
from model.errors import ConfigError
from model.products import COLUMNS, product

GREEDY = 1e30
WIDEST_TRIANGLE = 128  # vocabulary up to which a product with a triangle of ones is faster than a running sum
ANY = 0  # as a number of rows: products of two rows or more give the same bits for each row
HIGHEST_UNIFORM = np.float32(1 - 2**-23)  # its product with any float32 total rounds to less than the total
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_k": (-1, 2**31 - 1),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repetition_penalty": (0.01, 100),  # dividing by a smaller number could overflow float32
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}
ABOVE_ZERO = ("typical_p",)


@dataclass(frozen=True)
class SamplingConfig:
    """The sampling settings of one request. Raises ConfigError if a value is out of range.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: keeps only the k most likely characters; 0 and -1 keep all.
        top_p: keeps only the most likely characters that together reach this probability (Holtzman et al.,
            2020); 0 keeps the most likely one.
        min_p: keeps only characters with at least this fraction of the highest probability.
        typical_p: keeps only the characters whose surprisal is closest to the entropy and that together reach
            this probability (locally typical sampling, Meister et al., 2022).
        repetition_penalty: divides the positive and multiplies the negative logits of characters that occur
            in the prompt or the generated text (Keskar et al., 2019); 1 is off.
        frequency_penalty: subtracted from a character's logit for each time it occurs in the generated text.
        presence_penalty: subtracted once from the logit of each character that occurs in the generated text.
        logit_bias: (id, bias) pairs, added to the logits.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        for name in RANGES:
            _check(name, getattr(self, name))
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
        """Whether some characters are excluded after the temperature is applied."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0 or self.typical_p < 1

    @property
    def inverse_temperature(self) -> float:
        """1 / temperature, at most 1e30, which is greedy."""
        return 1 / self.temperature if self.temperature > 1 / GREEDY else GREEDY


def random_stream(seed: int, choice: int = 0) -> np.random.Generator:
    """The random generator of one choice of a request: PCG64 seeded with (seed, choice).

    A negative 64-bit seed is taken as the unsigned number with the same bits.
    """
    key = [seed if seed >= 0 else seed % 2**64, choice]
    # NumPy would make the same array of small numbers itself, but takes twice as long
    entropy = np.array(key, np.uint32) if max(key) < 2**32 else key
    return np.random.Generator(np.random.PCG64(entropy))


def draw_uniforms(stream: np.random.Generator, sampling: SamplingConfig, count: int) -> NDArray[np.float32]:
    """The next `count` uniform numbers in [0, 1), float32; all 0 for a greedy request."""
    if sampling.inverse_temperature == GREEDY:
        return np.zeros(count, np.float32)
    uniforms = stream.random(count, dtype=np.float32)
    return np.minimum(uniforms, HIGHEST_UNIFORM, out=uniforms)


class Sampler:
    """Chooses the next character of each row of a batch.

    Args:
        characters: K.
        rows: maximum number of rows.
        block: number of rows of every product: ANY, or a divisor of `rows`.

    Attributes:
        logits: (rows, K) float32; the caller writes them here before each pick, which overwrites them.
        cumulative: (rows, K or more), the cumulative weights of the last pick.
        likeliest: (rows, 1), the highest logit.
        thresholds: (rows, 1), the uniform number times the total weight.
        inverse_temperature: (rows, 1).
        heated: whether some row's temperature is not 1.
    """

    def __init__(self, characters: int, rows: int, block: int = ANY) -> None:
        self._block = block
        self.logits = np.zeros((rows, characters), np.float32)
        wide = characters <= WIDEST_TRIANGLE
        columns = -(-characters // COLUMNS) * COLUMNS if wide else characters
        self._triangle = np.triu(np.ones((1, characters, columns), np.float32)) if wide else None
        self.cumulative = np.zeros((rows, columns), np.float32)
        self._above = np.zeros((rows, columns), np.bool_)
        self.likeliest, self.thresholds = np.zeros((2, rows, 1), np.float32)
        self._settings = [SamplingConfig()] * rows
        self.inverse_temperature = np.ones((rows, 1), np.float32)
        self._seen, self._generated = np.zeros((2, rows, characters), np.float32)  # counts by character
        self.heated = False
        self._filters: _Filters | None = None
        self._adjustments: _Adjustments | None = None

    @property
    def adjusts(self) -> bool:
        """Whether some row has a penalty or a bias."""
        return self._adjustments is not None

    def put(self, row: int, sampling: SamplingConfig, prompt: NDArray[np.integer]) -> None:
        """Starts a request in a row. Call `prepare` before the next pick."""
        self._settings[row] = sampling
        self.inverse_temperature[row] = sampling.inverse_temperature
        if sampling.adjusts:
            self._seen[row] = np.bincount(prompt, minlength=self._seen.shape[1])
            self._generated[row] = 0

    def move(self, source: int, target: int) -> None:
        """Moves a request to another row. Call `prepare` before the next pick."""
        self._settings[target] = self._settings[source]
        for array in (self.inverse_temperature, self._seen, self._generated):
            array[target] = array[source]

    def prepare(self, rows: int) -> None:
        """Applies the settings of the first `rows` rows to the picks that follow."""
        settings = self._settings[:rows]
        self.heated = any(sampling.temperature != 1 for sampling in settings)
        filtered = [row for row, sampling in enumerate(settings) if sampling.filters]
        adjusted = [row for row, sampling in enumerate(settings) if sampling.adjusts]
        self._filters = _Filters(filtered, settings) if filtered else None
        self._adjustments = _Adjustments(adjusted, settings, self.logits.shape[1]) if adjusted else None

    def adjust(self) -> None:
        """Applies penalties and biases to `logits`."""
        if self._adjustments is not None:
            self._adjustments.apply(self.logits, self._seen, self._generated)

    def count(self, chosen: NDArray[np.intp], forced: NDArray[np.bool_]) -> None:
        """Counts the characters just chosen, (rows,), except a prompt's (`forced`), which `put` counted."""
        if self._adjustments is not None:
            rows = self._adjustments.rows
            rows = rows[~forced[rows]]
            self._seen[rows, chosen[rows]] += 1
            self._generated[rows, chosen[rows]] += 1

    def picker(self, rows: int) -> Callable[[Array, NDArray[np.intp]], None]:
        """A function pick(uniforms, chosen) that writes the id that each of the first `rows` rows chooses.

        `uniforms` (rows,) are from `draw_uniforms`, `chosen` is (rows,). The choice is the first id whose
        cumulative weight exceeds the uniform number times the total (inverse transform sampling).
        """
        weights, inverse = self.logits[:rows], self.inverse_temperature[:rows]
        likeliest, thresholds = self.likeliest[:rows], self.thresholds[:rows]
        threshold, above = thresholds[:, 0], self._above[:rows]
        cumulative = self.cumulative[:rows]
        total, cumulate = cumulative[:, -1], self.cumulator(rows)

        def pick(uniforms: Array, chosen: NDArray[np.intp]) -> None:
            np.maximum.reduce(weights, axis=1, out=likeliest, keepdims=True)
            np.subtract(weights, likeliest, weights)
            if self.heated:
                np.multiply(weights, inverse, weights)
            np.exp(weights, weights)
            if self._filters is not None:
                self._filters.apply(weights)
            cumulate()
            np.multiply(total, uniforms, threshold)
            np.greater(cumulative, thresholds, above)
            above.argmax(1, chosen)

        return pick

    @property
    def filters(self) -> bool:
        """Whether some row has a filter."""
        return self._filters is not None

    def cumulator(self, rows: int) -> Callable[[], object]:
        """A function that writes the running sums of the first `rows` rows of weights into `cumulative`."""
        weights, cumulative, triangle = self.logits[:rows], self.cumulative[:rows], self._triangle
        if triangle is None:
            return partial(np.add.accumulate, weights, 1, None, cumulative)
        return product(weights, triangle, cumulative, 1 if self._block == ANY else rows // self._block)


class _Filters:
    """The filters of the F rows that have any, each as a column (F, 1)."""

    def __init__(self, rows: Sequence[int], settings: Sequence[SamplingConfig]) -> None:
        self.rows = np.array(rows, np.intp)
        self.top_k = _column("top_k", rows, settings, np.int64)
        self.top_p = _column("top_p", rows, settings, np.float64)
        self.min_p = _column("min_p", rows, settings, np.float32)
        self.typical_p = _column("typical_p", rows, settings, np.float64)

    def apply(self, weights: Array) -> None:
        """Sets the excluded characters to 0 in unnormalised probabilities, (B, K).

        The order is top-k, min-p, top-p, typical-p; the most likely character always passes the first three.
        Ties are broken by the lower id, and in typical sampling by the higher probability.
        """
        chosen = weights[self.rows]
        order = np.argsort(-chosen, axis=1, kind="stable")
        ranked = np.take_along_axis(chosen, order, axis=1)
        rank = np.arange(chosen.shape[1])
        keep = (rank < self.top_k) | (self.top_k <= 0)
        keep &= ranked >= self.min_p * ranked[:, :1]
        ranked = np.where(keep, ranked, 0).astype(np.float64)
        up_to = np.cumsum(ranked, axis=1)
        keep &= (up_to - ranked < self.top_p * up_to[:, -1:]) | (self.top_p >= 1)
        keep[:, 0] = True
        if np.any(self.typical_p < 1):
            keep &= _typical(np.where(keep, ranked, 0), self.typical_p)
        kept = np.zeros_like(keep)
        np.put_along_axis(kept, order, keep, axis=1)
        weights[self.rows] = np.where(kept, chosen, np.float32(0))


def _typical(weights: Array, typical_p: Array) -> NDArray[np.bool_]:
    """Which characters are locally typical (Meister et al., 2022), as a mask (F, K).

    With H = -sum p log p, those are the characters of the smallest |-log p - H| that together reach
    `typical_p` (F, 1). `weights` (F, K) are unnormalised probabilities in descending order; ties are broken
    by position.
    """
    possible = weights > 0
    p = weights / np.cumsum(weights, axis=1)[:, -1:]
    surprise = -np.log(np.where(possible, p, 1))
    entropy = np.cumsum(p * surprise, axis=1)[:, -1:]
    distance = np.where(possible, np.abs(surprise - entropy), np.inf)
    order = np.argsort(distance, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, axis=1)
    keep: NDArray[np.bool_] = (np.cumsum(ordered, axis=1) - ordered < typical_p) | (typical_p >= 1)
    keep[:, 0] = True
    typical = np.zeros_like(keep)
    np.put_along_axis(typical, order, keep, axis=1)
    return typical


class _Adjustments:
    """The penalties, each as a column (A, 1), and the biases (A, K) of the A rows that have any."""

    def __init__(self, rows: Sequence[int], settings: Sequence[SamplingConfig], characters: int) -> None:
        self.rows = np.array(rows, np.intp)
        self.repetition = _column("repetition_penalty", rows, settings, np.float32)
        self.frequency = _column("frequency_penalty", rows, settings, np.float32)
        self.presence = _column("presence_penalty", rows, settings, np.float32)
        self.bias = np.zeros((len(rows), characters), np.float32)
        for index, row in enumerate(rows):
            for character, value in settings[row].logit_bias:
                self.bias[index, character] = value

    def apply(self, logits: Array, seen: Array, generated: Array) -> None:
        """Adjusts logits (B, K) in place; `seen` and `generated` are counts by character, (B, K)."""
        rows = logits[self.rows]
        penalised = np.where(rows > 0, rows / self.repetition, rows * self.repetition)
        rows = np.where(seen[self.rows] > 0, penalised, rows)
        counts = generated[self.rows]
        logits[self.rows] = rows - self.frequency * counts - self.presence * (counts > 0) + self.bias


def _column(name: str, rows: Sequence[int], settings: Sequence[SamplingConfig], dtype: type) -> Array:
    return np.array([[getattr(settings[row], name)] for row in rows], dtype)


def _check(name: str, value: float) -> None:
    """Raises ConfigError if `value` is out of range."""
    low, high = RANGES[name]
    # the common case first: each request makes eight of these checks
    if type(value) in (float, int) and low <= value <= high and (value > 0 or name not in ABOVE_ZERO):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(name, f"must be a finite number. Given: {value!r}")
    if name in ABOVE_ZERO and value <= 0:
        raise ConfigError(name, f"must be above 0 and at most {high:g}. Given: {value}")
    if not low <= value <= high:
        raise ConfigError(name, f"must be between {low:g} and {high:g}. Given: {value}")
