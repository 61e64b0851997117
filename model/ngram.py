"""Baselines to compare a network's loss with: uniform, unigram and n-gram models of the same text.

Losses are means of -ln p, in nats per character.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.batches import Ids, split

ORDER = 5
MAX_COUNTED = 4_000_000  # characters at the end of a text that are used; each needs 90 bytes of memory
HELD_OUT = 0.1  # fraction of the text to measure on, for runs that hold nothing out


def baselines(ids: Ids, characters: int, validation_fraction: float) -> dict[str, float]:
    """Losses on the held-out end of a text, by name: `uniform`, `unigram` and `5-gram`.

    Only the last MAX_COUNTED of a longer text are used.

    Args:
        ids: the whole text (N,), at least two characters.
        characters: K.
        validation_fraction: the fraction held out; 0 means HELD_OUT.
    """
    training, _ = split(ids, validation_fraction or HELD_OUT)
    held_out = min(max(1, len(ids) - len(training)), MAX_COUNTED // 2)
    ids = ids[-MAX_COUNTED:]
    losses = ngram_losses(ids, len(ids) - held_out, characters, ORDER)
    return {"uniform": math.log(characters), "unigram": losses[0], f"{ORDER}-gram": losses[-1]}


def ngram_losses(ids: Ids, trained: int, characters: int, order: int) -> list[float]:
    """Losses on ids[trained:] of the n-gram models of order 1 to `order`, counted in ids[:trained].

    Interpolated Witten-Bell smoothing (Witten and Bell, 1991; Chen and Goodman, 1998, equation 16): with n(h)
    occurrences of the context h, t(h) distinct characters after it, and h' the context without its first
    character,

        p(c | h) = (n(hc) + t(h) p(c | h')) / (n(h) + t(h)),    and 1 / K below the unigram.
    """
    held_out = np.arange(trained, len(ids))
    p = np.full(len(held_out), 1 / characters)
    contexts = np.zeros(len(ids), np.int64)  # for each position, the number of the context before it
    losses = []
    for length in range(1, order + 1):
        places = held_out[held_out >= length - 1]
        grams, first = _numbered(contexts, ids, characters, length - 1)
        p[len(held_out) - len(places) :] = _interpolated(p, contexts, grams, first, trained, length, places)
        losses.append(float(-np.log(p).mean()))
        contexts = np.concatenate(([0], grams[:-1]))
    return losses


def _numbered(
    contexts: NDArray[np.int64], ids: Ids, characters: int, start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of the n-gram that ends at each position, from `start`, and where each n-gram first ends."""
    codes = contexts[start:] * characters + ids[start:]
    _, first, numbers = np.unique(codes, return_index=True, return_inverse=True)
    return np.concatenate((np.zeros(start, np.int64), numbers)), first + start


def _interpolated(
    p: NDArray[np.float64],
    contexts: NDArray[np.int64],
    grams: NDArray[np.int64],
    first: NDArray[np.int64],
    trained: int,
    length: int,
    places: NDArray[np.int64],
) -> NDArray[np.float64]:
    """p(c | h) at the positions `places`; the end of `p` has p(c | h') for them."""
    counted = slice(length - 1, trained)
    size = int(contexts.max()) + 1
    occurrences = np.bincount(contexts[counted], minlength=size)[contexts[places]]
    different = np.bincount(contexts[first[first < trained]], minlength=size)[contexts[places]]
    of_gram = np.bincount(grams[counted], minlength=int(grams.max()) + 1)[grams[places]]
    lower = p[len(p) - len(places) :]
    known = occurrences > 0
    total = np.where(known, occurrences + different, 1)
    return np.where(known, (of_gram + different * lower) / total, lower)
