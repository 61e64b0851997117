"""The activations of hidden units along a text, and which units are correlated with an interpretable feature.

After Karpathy, Johnson and Fei-Fei, "Visualizing and Understanding Recurrent Networks" (2015), who found
units that track the position in a line, or whether a quotation is open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.cells import Array
from model.network import Network

WINDOW = 256  # characters read at a time, which bounds the memory of a forward pass
ENOUGH = 8  # minimum number of characters above and below a feature's mean, in each half of the text
CONFIRMED = 0.3  # minimum correlation in the second half
VOWELS = frozenset("aeiouyàáâäæèéêëìíîïòóôöœøùúûü")
BRACKETS = {"(": ")", "[": "]"}
QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“"}


@dataclass(frozen=True)
class Follower:
    """The unit most correlated with a feature; `correlation` is Pearson's r in the second half, -1 to 1."""

    feature: str
    layer: int
    unit: int
    correlation: float


def activations(network: Network, ids: NDArray[np.integer]) -> Array:
    """h of every unit after each character of `ids` (T,), from the zero state: (T, L, H), from -1 to 1."""
    state = network.zero_state(1)
    parts = [np.empty((0, network.config.layers, network.config.hidden), network.flat.dtype)]
    for start in range(0, len(ids), WINDOW):
        _, tape = network.forward(ids[start : start + WINDOW, None], state)
        parts.append(np.stack([layer.outputs[:, 0] for layer in tape.layers], axis=1))
        state = tape.final_state
    return np.concatenate(parts)


def features(text: str) -> dict[str, NDArray[np.float64]]:
    """Features of each character of the text that depend only on the text up to there, by name, each (T,)."""
    return {
        "inside quotation marks": _within(text, QUOTES),
        "inside brackets": _within(text, BRACKETS),
        "position in the line": _since(text, lambda character: character == "\n"),
        "position in the word": _since(text, lambda character: not character.isalnum()),
        "capital letters": _flags(text, str.isupper),
        "vowels": _flags(text, lambda character: character.lower() in VOWELS),
        "spaces and line ends": _flags(text, str.isspace),
        "punctuation": _flags(text, lambda character: not (character.isalnum() or character.isspace())),
    }


def followers(values: Array, text: str) -> list[Follower]:
    """The unit of `values` (T, L, H) most correlated with each feature of `text`, in descending order.

    The unit is selected on the first half of the text and confirmed on the second half: its correlation
        there, which
    is the one returned, must have the same sign and at least the absolute value CONFIRMED. A feature needs
    ENOUGH characters on either side of its mean in each half, because among several hundred units one will
    match a single capital letter by chance.
    """
    length, _, hidden = values.shape
    flat, half = values.reshape(length, -1).astype(np.float64), length // 2
    found = []
    for name, feature in features(text).items():
        first, second = feature[:half], feature[half:]
        if not (_varies(first) and _varies(second)):
            continue
        selection = _correlations(first, flat[:half])
        best = int(np.abs(selection).argmax())
        correlation = float(_correlations(second, flat[half:, best : best + 1])[0])
        if correlation * np.sign(selection[best]) >= CONFIRMED:
            found.append(Follower(name, best // hidden, best % hidden, correlation))
    return sorted(found, key=lambda follower: -abs(follower.correlation))


def _varies(feature: NDArray[np.float64]) -> bool:
    above = int(np.count_nonzero(feature > feature.mean())) if len(feature) else 0
    return min(above, len(feature) - above) >= ENOUGH


def _correlations(feature: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's r of a feature (T,) with each column of `values` (T, N), (N,); 0 for a constant column."""
    feature, values = feature - feature.mean(), values - values.mean(axis=0)
    scale = np.linalg.norm(feature) * np.linalg.norm(values, axis=0)
    correlations = np.zeros(values.shape[1])
    np.divide(feature @ values, scale, out=correlations, where=scale > 0)
    return correlations


def _flags(text: str, holds: Callable[[str], bool]) -> NDArray[np.float64]:
    return np.array([holds(character) for character in text], np.float64)


def _since(text: str, ends: Callable[[str], bool]) -> NDArray[np.float64]:
    """For each character, how many characters ago the last one was for which `ends` is true."""
    counts, count = [], 0
    for character in text:
        count = 0 if ends(character) else count + 1
        counts.append(count)
    return np.array(counts, np.float64)


def _within(text: str, pairs: dict[str, str]) -> NDArray[np.float64]:
    """1 from an opening mark up to, but not including, its closing mark; otherwise 0."""
    inside, closing = [], ""
    for character in text:
        if not closing:
            closing = pairs.get(character, "")
        elif character == closing:
            closing = ""
        inside.append(bool(closing))
    return np.array(inside, np.float64)
