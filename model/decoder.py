"""A network laid out for generation: many rows, one character a step, the same bytes at any width.

After each layer comes one product only: [W | next], the recurrent half of the layer's next step beside the
layer above's input or the logits. The matrices are padded with zero columns to whole blocks, because at such
sizes a row's product is the same to the bit at any width from two rows up. Where a BLAS does not keep that
promise, which is tried out for each network, all products are made at the one full width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.cells import Array, Arrays, cut
from model.network import Network
from model.sampling import COLUMNS, Sampler

WIDEST = 64


class Decoder:
    """A network in float32, laid out for generation. Immutable; any number of batches may share it.

    Attributes:
        widest: most rows of a batch.
        any_width: whether steps may be of any number of rows from two up; else they are of the widest.
        embedding: what a character adds to the first layer's gates, and their bias, (K, G*H). This and
            all else that goes into a cell is multiplied by the cell's scales.
        products: [W | next] of each layer; `biases`: those of the next layer, or of the logits.
    """

    def __init__(self, network: Network, widest: int = WIDEST) -> None:
        self.network = network = network.astype(np.float32)
        self.widest = widest
        config, p = network.config, network.parameters
        self.width = network.cell.gates * config.hidden
        scales = np.repeat(np.array(network.cell.scales, np.float32), config.hidden)
        self.embedding = (network.input_rows() + p["layer0.b"]) * scales
        self.embedding_halves = [_halves(row, network) for row in self.embedding]
        nexts = [p[f"layer{layer}.U"] * scales for layer in range(1, config.layers)] + [p["V"]]
        self.biases = [p[f"layer{layer}.b"] * scales for layer in range(1, config.layers)] + [p["c"]]
        self.products = [_fuse(p[f"layer{layer}.W"] * scales, after) for layer, after in enumerate(nexts)]
        self.any_width = _same_at_all_widths(self)

    @property
    def size(self) -> int:
        """Bytes of the arrays that were made for it, besides the network's own."""
        return self.embedding.nbytes + sum(product.nbytes for product in self.products)


class Lanes:
    """The states of a batch's rows in the network. A lane is a row's index in all arrays.

    Args:
        logits: (widest, K), where steps write.
    """

    def __init__(self, decoder: Decoder, logits: Array) -> None:
        network, rows = decoder.network, decoder.widest
        config, cell = network.config, network.cell
        self.decoder, self.logits = decoder, logits
        self.states = np.zeros((config.layers, cell.states, rows, config.hidden), np.float32)
        self.products = [np.zeros((rows, product.shape[1]), np.float32) for product in decoder.products]
        self._u = np.zeros((rows, decoder.width), np.float32)
        self._scratch = np.zeros((rows, config.hidden), np.float32)
        self._cache = np.zeros((cell.cached, rows, config.hidden), np.float32)

    def clear(self, lane: int) -> None:
        """Sets a lane to the zero state."""
        self.states[:, :, lane] = 0
        for product in self.products:
            product[lane] = 0  # h W of the zero state

    def move(self, source: int, target: int) -> None:
        """Lets a row go on in another lane."""
        self.states[:, :, target] = self.states[:, :, source]
        for product in self.products:
            product[target] = product[source]

    def stepper(self, rows: int) -> Callable[[NDArray[np.intp]], None]:
        """step(ids (B,)): feeds a character to each of the first `rows` lanes and writes their logits."""
        embedding, u, step = self.decoder.embedding, self._u[:rows], self.decoder.network.cell.step
        scratch = self._scratch[:rows]
        layers = list(self._layers(slice(rows), slice(rows)))

        def step_all(ids: NDArray[np.intp]) -> None:
            embedding.take(ids, 0, u, "clip")
            for u_halves, v, state, cache, h, product, out, onward, bias, target in layers:
                step(u_halves, v, state, state, cache, scratch)
                h.dot(product, out)
                np.add(onward, bias, target)

        return step_all

    def stepper_of_one(self) -> Callable[[int], None]:
        """step(id): the same for the first lane alone; the second one's products are made, and not used."""
        embeddings, step = self.decoder.embedding_halves, self.decoder.network.cell.step
        scratch = self._scratch[0]
        (_, v, state, cache, h, product, out, onward, bias, target), *above = self._layers(
            0, slice(min(2, self.decoder.widest))
        )

        def step_one(character: int) -> None:
            step(embeddings[character], v, state, state, cache, scratch)
            h.dot(product, out)
            np.add(onward, bias, target)
            for u, v_above, states, kept, hidden, matrix, result, upward, shift, goal in above:
                step(u, v_above, states, states, kept, scratch)
                hidden.dot(matrix, result)
                np.add(upward, shift, goal)

        return step_one

    def _layers(self, rows: slice | int, multiplied: slice) -> Iterator[_Layer]:
        """The views of each layer that a step of `rows` works with; products are of the rows `multiplied`."""
        decoder, network, wide = self.decoder, self.decoder.network, self.decoder.width
        for layer, (matrix, product, bias) in enumerate(
            zip(decoder.products, self.products, decoder.biases, strict=True)
        ):
            target = self.logits if layer == len(self.products) - 1 else self._u
            yield _Layer(
                _halves(self._u[rows], network),
                _halves(product[rows, :wide], network),
                tuple(self.states[layer, :, rows]),
                cut(self._cache[:, rows], network.cell.kept),
                self.states[layer, 0, multiplied],
                matrix,
                product[multiplied],
                product[rows, wide : wide + len(bias)],
                bias,
                target[rows],
            )


class _Layer(NamedTuple):
    """Views of one layer: the cell's, the product and its result, and what goes on to the layer above."""

    u: Arrays
    v: Arrays
    state: Arrays
    cache: Arrays
    h: Array
    product: Array
    out: Array
    onward: Array
    bias: Array
    target: Array


def _same_at_all_widths(decoder: Decoder) -> bool:
    """Whether steps and sums of fewer rows give each row the bytes that it gets at the full width."""
    rng, widest = np.random.default_rng(0), decoder.widest
    sampler = Sampler(decoder.network.config.vocabulary, widest)
    lanes = Lanes(decoder, sampler.logits)
    ids = rng.integers(decoder.network.config.vocabulary, size=widest)
    weights = rng.random(sampler.logits.shape, np.float32)
    states, *products = (
        rng.uniform(-1, 1, array.shape).astype(np.float32) for array in (lanes.states, *lanes.products)
    )

    def outcome(rows: int) -> list[Array]:
        """What the last `rows` rows come to in the first lanes."""
        lanes.states[:, :, :rows] = states[:, :, -rows:]
        for product, values in zip(lanes.products, products, strict=True):
            product[:rows] = values[-rows:]
        if rows == 1:
            lanes.stepper_of_one()(int(ids[-1]))
        else:
            lanes.stepper(rows)(ids[-rows:])
        logits = sampler.logits[:rows].copy()
        sampler.logits[:rows] = weights[-rows:]
        sampler.cumulator(min(max(rows, 2), widest))()
        return [logits, *(array[:rows].copy() for array in (sampler.cumulative, *lanes.products))]

    whole = outcome(widest)
    return all(
        np.array_equal(part, full[-rows:])
        for rows in _telling_widths(widest)
        for part, full in zip(outcome(rows), whole, strict=True)
    )


def _telling_widths(widest: int) -> Sequence[int]:
    """All small widths and those around whole blocks: kernels differ by what a width leaves over."""
    telling = {*range(1, 18), *(block + more for block in range(0, widest, 16) for more in (-1, 0, 1))}
    return sorted(width for width in telling if 0 < width < widest)


def _fuse(W: Array, after: Array) -> Array:
    """[W | after], with zero columns up to a whole block; each part's rows stay rows."""
    columns = W.shape[1] + after.shape[1]
    padded = np.zeros((len(W), -(-columns // COLUMNS) * COLUMNS), np.float32)
    padded[:, : W.shape[1]] = W
    padded[:, W.shape[1] : columns] = after
    return padded


def _halves(x: Array, network: Network) -> tuple[Array, ...]:
    """The blocks of H columns of (..., G*H), as the cell takes them."""
    gates = x.reshape(*x.shape[:-1], network.cell.gates, network.config.hidden)
    return cut(np.moveaxis(gates, -2, 0), network.cell.halves)
