"""What the hidden units do along a text, and which of them follow something that a person can name.

After Karpathy, Johnson and Fei-Fei, "Visualizing and Understanding Recurrent Networks" (2015), where units
were found that tell how far a line has come or whether a quotation is open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.cells import Array
from model.network import Network

WINDOW = 256  # characters read at a time, so that the memory taken does not grow with the text
ENOUGH = 8  # characters of each kind that a half of the text must have
CONFIRMED = 0.3  # least correlation in the second half
VOWELS = frozenset("aeiouyàáâäæèéêëìíîïòóôöœøùúûü")
BRACKETS = {"(": ")", "[": "]"}
QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“"}


@dataclass(frozen=True)
class Follower:
    """The unit closest to a feature; `correlation` is Pearson's in the second half, -1 to 1."""

    feature: str
    layer: int
    unit: int
    correlation: float


def activations(network: Network, ids: NDArray[np.integer]) -> Array:
    """h of every unit after each character of `ids` (T,), from the zero state: (T, L, H), each in -1 to 1."""
    state = network.zero_state(1)
    parts = [np.empty((0, network.config.layers, network.config.hidden), network.flat.dtype)]
    for start in range(0, len(ids), WINDOW):
        _, tape = network.forward(ids[start : start + WINDOW, None], state)
        parts.append(np.stack([layer.outputs[:, 0] for layer in tape.layers], axis=1))
        state = tape.final_state
    return np.concatenate(parts)


def features(text: str) -> dict[str, NDArray[np.float64]]:
    """Numbers that a reader could keep while going through the text, one a character, each (T,)."""
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
    """The unit of `values` (T, L, H) that follows each feature; the best first.

    A unit is found in the first half of the text, and counts only if the second half confirms it: there its
    correlation, which is the one given, has the same sign and at least CONFIRMED. Features without
    ENOUGH characters above and not above their mean in each half are left out: some unit of several hundred
    would follow the one capital of a sentence perfectly.
    """
    length, _, hidden = values.shape
    flat, half = values.reshape(length, -1).astype(np.float64), length // 2
    found = []
    for name, feature in features(text).items():
        first, second = feature[:half], feature[half:]
        if not (_varies(first) and _varies(second)):
            continue
        guesses = _correlations(first, flat[:half])
        best = int(np.abs(guesses).argmax())
        correlation = float(_correlations(second, flat[half:, best : best + 1])[0])
        if correlation * np.sign(guesses[best]) >= CONFIRMED:
            found.append(Follower(name, best // hidden, best % hidden, correlation))
    return sorted(found, key=lambda follower: -abs(follower.correlation))


def _varies(feature: NDArray[np.float64]) -> bool:
    above = int(np.count_nonzero(feature > feature.mean())) if len(feature) else 0
    return min(above, len(feature) - above) >= ENOUGH


def _correlations(feature: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's, of a feature (T,) with each column of `values`; 0 for a column that does not vary."""
    feature, values = feature - feature.mean(), values - values.mean(axis=0)
    scale = np.linalg.norm(feature) * np.linalg.norm(values, axis=0)
    correlations = np.zeros(values.shape[1])
    np.divide(feature @ values, scale, out=correlations, where=scale > 0)
    return correlations


def _flags(text: str, holds: Callable[[str], bool]) -> NDArray[np.float64]:
    return np.array([holds(character) for character in text], np.float64)


def _since(text: str, ends: Callable[[str], bool]) -> NDArray[np.float64]:
    """How many characters ago the last one was for which `ends` holds."""
    counts, count = [], 0
    for character in text:
        count = 0 if ends(character) else count + 1
        counts.append(count)
    return np.array(counts, np.float64)


def _within(text: str, pairs: dict[str, str]) -> NDArray[np.float64]:
    """1 from an opening mark until its closing one, which counts as outside."""
    inside, closing = [], ""
    for character in text:
        if not closing:
            closing = pairs.get(character, "")
        elif character == closing:
            closing = ""
        inside.append(bool(closing))
    return np.array(inside, np.float64)
