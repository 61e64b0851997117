"""A network prepared for generation: one character per step, the same bytes for any number of rows.

Each layer is followed by a single product with [W | next]: W gives the recurrent input of the layer's next
step, `next` the input of the layer above, or the logits. The matrices are padded with zero columns to whole
blocks and multiplied in blocks that the BLAS does not pack. At these sizes the kernels of many processors
give a row the same bits in any lane of a product of two rows or more. That is tested for each network; if it
fails, all products have the same, fixed number of rows, for which all lanes give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model import buffers
from model.cells import Array, Arrays, cut
from model.network import Network
from model.products import column_blocks, product, row_blocks
from model.sampling import ANY, Sampler
from model.single_row import Advance, SingleRow

WIDEST = 64
ROW_BLOCKS = (ANY, 8, 4)  # tested in this order


class Decoder:
    """A network in float32, prepared for generation. Batches can share it.

    All inputs of a cell are multiplied by the cell's scales.

    Attributes:
        widest: maximum number of rows of a batch.
        lanes: rows of a batch's arrays: `widest`, rounded up to whole blocks.
        block: number of rows of every product; ANY if it does not matter.
        width: G*H.
        embedding: the first layer's input matrix plus its bias, (K, G*H).
        embedding_halves: the rows of `embedding`, sliced for the cell.
        products: [W | next] of each layer, in blocks of columns, (blocks, H, columns).
        biases: for each layer, the bias of the layer above, or of the logits.
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
        fused = [np.hstack((p[f"layer{layer}.W"] * scales, after)) for layer, after in enumerate(nexts)]
        self.products = [column_blocks(matrix, widest) for matrix in fused]
        for block in ROW_BLOCKS:
            self.multiply_in_blocks(block)
            if _same_at_all_widths(self):
                break
        else:
            self.multiply_in_blocks(1)  # one row at a time: always the same bits, but slow

    @property
    def size(self) -> int:
        """Bytes of memory in addition to the network's own arrays."""
        return self.embedding.nbytes + sum(matrix.nbytes for matrix in self.products)

    def lanes_for(self, rows: int) -> int:
        """The number of lanes of a step of `rows` rows: whole blocks, and at least two lanes."""
        if self.block == ANY:
            rows = max(rows, 2)
            count = max(row_blocks(rows, blocks) for blocks in self.products)
            return -(-rows // count) * count
        return -(-rows // self.block) * self.block

    def row_blocks(self, lanes: int, layer: int) -> int:
        """The number of blocks of rows of a layer's product."""
        return row_blocks(lanes, self.products[layer]) if self.block == ANY else lanes // self.block

    def multiply_in_blocks(self, block: int) -> None:
        """Sets the number of rows of every product, for batches created afterwards."""
        self.block = block
        self.lanes = self.lanes_for(self.widest)


class Lanes:
    """The states of a batch's rows. A lane is a row's index in all arrays.

    Args:
        decoder: the network.
        logits: (lanes, K), the output of every step.
    """

    def __init__(self, decoder: Decoder, logits: Array) -> None:
        network, rows = decoder.network, decoder.lanes
        config, cell = network.config, network.cell
        self.decoder, self.logits = decoder, logits
        self.states = buffers.zeros((config.layers, cell.states, rows, config.hidden), np.float32)
        self.products = [
            buffers.zeros((rows, len(blocks) * blocks.shape[2]), np.float32) for blocks in decoder.products
        ]
        self._u = buffers.zeros((rows, decoder.width), np.float32)
        self._cache = buffers.zeros((cell.cached, rows, config.hidden), np.float32)
        self._scratch = buffers.zeros((rows, config.hidden), np.float32)

    def clear(self, lane: int) -> None:
        """Sets a lane to the zero state."""
        self.states[:, :, lane] = 0
        for result in self.products:
            result[lane] = 0  # h W of the zero state

    def move(self, source: int, target: int) -> None:
        """Moves a row to another lane."""
        self.states[:, :, target] = self.states[:, :, source]
        for result in self.products:
            result[target] = result[source]

    def stepper(self, lanes: int) -> Callable[[NDArray[np.intp]], None]:
        """A function step(ids) that feeds ids (lanes,) to the first `lanes` lanes and writes their logits."""
        embedding, u = self.decoder.embedding, self._u[:lanes]
        layers = self._layers(slice(lanes), slice(lanes))

        def step(ids: NDArray[np.intp]) -> None:
            embedding.take(ids, 0, u, "clip")
            for halves, advance in layers:
                advance(halves)

        return step

    def single_row(self, sampler: Sampler) -> SingleRow:
        """Generation in the first lane alone. Products still have as many rows as the same bits need."""
        multiplied = self.decoder.lanes_for(1)
        layers = self._layers(0, slice(multiplied))
        return SingleRow(self.decoder.embedding_halves, layers, sampler, multiplied)

    def _layers(self, rows: slice | int, multiplied: slice) -> list[tuple[Arrays, Advance]]:
        """For each layer, the slices of its input and its `Advance` function, for `rows`."""
        u = _halves(self._u[rows], self.decoder.network)
        return [(u, self._layer(layer, rows, multiplied)) for layer in range(len(self.products))]

    def _layer(self, layer: int, rows: slice | int, multiplied: slice) -> Advance:
        """The `Advance` function of a layer: the step of `rows`, then the product of rows `multiplied`."""
        decoder, cell, wide = self.decoder, self.decoder.network.cell, self.decoder.width
        step, scratch, cache = cell.step, self._scratch[rows], cut(self._cache[:, rows], cell.kept)
        state, h = tuple(self.states[layer, :, rows]), self.states[layer, 0, multiplied]
        result, bias = self.products[layer], decoder.biases[layer]
        multiply = product(h, decoder.products[layer], result[multiplied], decoder.row_blocks(len(h), layer))
        v = _halves(result[rows, :wide], decoder.network)
        onward = result[rows, wide : wide + len(bias)]
        target = (self.logits if layer == len(self.products) - 1 else self._u)[rows]

        def advance(u: Arrays) -> None:
            step(u, v, state, state, cache, scratch)
            multiply()
            np.add(onward, bias, target)

        return advance


def _same_at_all_widths(decoder: Decoder) -> bool:
    """Tests whether each row gets the same bytes with fewer rows, and in another lane."""
    rng, lanes = np.random.default_rng(0), decoder.lanes
    sampler = Sampler(decoder.network.config.vocabulary, lanes, decoder.block)
    memory = Lanes(decoder, sampler.logits)
    ids = rng.integers(decoder.network.config.vocabulary, size=lanes)
    weights = rng.random(sampler.logits.shape, np.float32)
    states, *products = (
        rng.uniform(-1, 1, array.shape).astype(np.float32) for array in (memory.states, *memory.products)
    )

    def outcome(which: NDArray[np.intp]) -> list[Array]:
        """The results for the rows `which`, computed in the first lanes."""
        rows = len(which)
        memory.states[:, :, :rows] = states[:, :, which]
        for result, values in zip(memory.products, products, strict=True):
            result[:rows] = values[which]
        if rows == 1:
            memory.single_row(sampler).step(int(ids[which[0]]))
        else:
            memory.stepper(rows)(ids[which])
        logits = sampler.logits[:rows].copy()
        sampler.logits[:rows] = weights[which]
        sampler.cumulator(decoder.lanes_for(rows))()
        return [logits, *(array[:rows].copy() for array in (sampler.cumulative, *memory.products))]

    every = np.arange(lanes)
    whole = outcome(every)
    choices = [every[-rows:] for rows in _tested_widths(decoder)] + [np.roll(every, 1)]
    return all(
        np.array_equal(part, full[which])
        for which in choices
        for part, full in zip(outcome(which), whole, strict=True)
    )


def _tested_widths(decoder: Decoder) -> Sequence[int]:
    """The numbers of rows to test: 1, the small ones, and those around multiples of 16.

    A BLAS kernel may treat the rows that are left over after whole blocks differently.
    """
    near = {start + offset for start in range(0, decoder.lanes, 16) for offset in (-1, 0, 1)}
    widths = {*range(2, 18), *near}
    return sorted({1} | {decoder.lanes_for(width) for width in widths if 0 < width < decoder.lanes})


def _halves(x: Array, network: Network) -> tuple[Array, ...]:
    """Views of (..., G*H), sliced for the cell."""
    gates = x.reshape(*x.shape[:-1], network.cell.gates, network.config.hidden)
    return cut(np.moveaxis(gates, -2, 0), network.cell.halves)
