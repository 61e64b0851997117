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
VOWELS = frozenset("aeiouyàáâäæèéêëìíîïòóôöœøùúûü")
BRACKETS = {"(": ")", "[": "]"}
QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“"}


@dataclass(frozen=True)
class Follower:
    """The unit that follows a feature of the text most closely; `correlation` is Pearson's, -1 to 1."""

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
    """For each feature that varies in `text` the closest unit of `values` (T, L, H); the best first."""
    length, _, hidden = values.shape
    centred = values.reshape(length, -1).astype(np.float64)
    centred -= centred.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    found = []
    for name, feature in features(text).items():
        feature = feature - feature.mean()
        norm = np.linalg.norm(feature)
        if norm == 0:
            continue
        scale = norm * norms
        correlations = np.divide(feature @ centred, scale, out=np.zeros_like(scale), where=scale > 0)
        best = int(np.abs(correlations).argmax())
        found.append(Follower(name, best // hidden, best % hidden, float(correlations[best])))
    return sorted(found, key=lambda follower: -abs(follower.correlation))


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
