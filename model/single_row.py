"""One row alone: the same bytes as in a batch, with less overhead.

A batch's step works on arrays (B, H) and lays ids and uniform numbers out in pages. For one row all of that
is overhead: here its arrays are vectors, its numbers are Python's own, and only products are made of several
rows, because a product of one row would differ in its last bits. A character then takes a small network
(Elman, 100 units) half the time, 3.5 in place of 7.2 microseconds, and a GRU of 256 units 18 in place of 25.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.cells import Array, Arrays
from model.sampling import Sampler

Advance = Callable[[Arrays], None]  # from a layer's input to that of the layer above, or to the logits


class SingleRow:
    """The first lane of a batch, in use alone, without filters, penalties or log-probabilities.

    Args:
        embeddings: what each character gives the first layer, (K,) of arrays as its cell takes them.
        layers: for each layer, the arrays of its input and what it does with them.
        sampler: of the batch.
        multiplied: rows of each product, from the least for which the first row's bytes are a batch's.

    Attributes:
        step: step(id) feeds a character and writes the logits.
        pick: pick(uniform) is the id that the row chooses then.
    """

    def __init__(
        self,
        embeddings: Sequence[Arrays],
        layers: Sequence[tuple[Arrays, Advance]],
        sampler: Sampler,
        multiplied: int,
    ) -> None:
        self.step = _stepper(embeddings, layers)
        self.pick = _picker(sampler, multiplied)

    def run(self, ids: NDArray[np.intp], uniforms: Array, prompts: NDArray[np.intp], given: int) -> None:
        """Feeds a character for each of `uniforms` (N,), ids[0] first; writes what follows it into `ids`.

        `ids` and `prompts` are (N+1,); the first `given` characters that follow are the prompt's.
        """
        step, pick, written = self.step, self.pick, []
        ids[1 : given + 1] = prompts[1 : given + 1]
        for character in ids[:given].tolist():
            step(character)
        character = int(ids[given])
        for uniform in uniforms[given:].tolist():
            step(character)
            character = pick(uniform)
            written.append(character)
        ids[given + 1 :] = written


def _stepper(embeddings: Sequence[Arrays], layers: Sequence[tuple[Arrays, Advance]]) -> Callable[[int], None]:
    (_, first), *above = layers

    def step(character: int) -> None:
        first(embeddings[character])
        for u, advance in above:
            advance(u)

    return step


def _picker(sampler: Sampler, multiplied: int) -> Callable[[float], int]:
    """The same as `Sampler.picker`, for the first row.

    Single numbers are read and written through memoryviews, which round to float32 as arrays do.
    """
    weights, cumulate = sampler.logits[0], sampler.cumulator(multiplied)
    likeliest, inverse = sampler.likeliest[0, 0, ...], sampler.inverse_temperature[0, 0, ...]
    read, cumulative = _numbers(weights), _numbers(sampler.cumulative[0])
    shift, threshold = _numbers(sampler.likeliest[0]), _numbers(sampler.thresholds[0])
    characters, last = len(weights), len(cumulative) - 1

    def pick(uniform: float) -> int:
        shift[0] = read[weights.argmax()]
        np.subtract(weights, likeliest, weights)
        if sampler.heated:
            np.multiply(weights, inverse, weights)
        np.exp(weights, weights)
        cumulate()
        threshold[0] = cumulative[last] * uniform
        chosen = bisect_right(cumulative, threshold[0])
        return chosen if chosen < characters else 0  # none, where logits are not numbers

    return pick


def _numbers(array: Array) -> memoryview[float]:
    """A float32 array (N,) as numbers that Python reads and writes faster than an array's."""
    return memoryview(array.data).cast("B").cast("f")
