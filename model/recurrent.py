"""One recurrent layer over a sequence: the only loop over time, forward and backward, for every cell.

Knows no gate equations (`cells.py`) and nothing of layers above or below (`network.py`).

What makes it fast on a CPU: the input's product is formed for the whole sequence before the loop, every
weight's gradient is one product for the whole sequence after it; each step's product is made in blocks so
small that the BLAS does not copy the weights first (`BlockedProduct`); all gates of a step are one operation;
all buffers, with the views of each step, are made once in a `LayerTape`, begin on a line of the cache and are
used again; local derivatives are formed a few steps at a time, while those steps are in the processor's
cache; and one row alone is a vector, not a matrix of one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from model import buffers
from model.cells import Array, Cell, cut
from model.onehot import one_hot_gradient

CACHED_ELEMENTS = 2**16  # elements of one array, over all steps of a span, that stay in the cache together
UNPACKED = 1_000_000  # multiplications up to which OpenBLAS multiplies matrices where they lie
BLOCK_WIDTHS = (64, 32)  # columns of a block: its kernels' width, and half of it
PIECES = (1, 2, 4)  # into which a sum may be cut


@dataclass(frozen=True)
class LayerWeights:
    """One layer's weights, or their gradients: U (K or H, G*H), W (H, G*H), b (G*H,)."""

    U: Array
    W: Array
    b: Array


class BlockedProduct:
    """out = x M for many x (B, N) and one M (N, G*W), in blocks of M's columns, gate by gate.

    At a few rows a product takes less time than the copy of M that a BLAS makes for each large one; OpenBLAS
    leaves it out for small ones. Two kinds of memory are bought with that: the blocks of M, copied once for
    many products, and `out`. Where blocks of columns alone are not small enough, the sum over N is cut into
    pieces too, if the caller can add them up. A transposed M, `upright` is False, is copied by a detour.

    Attributes:
        out: (pieces, G, B, W), to be added up over the pieces; (pieces, G, W) if there is one row, for which
            nothing is copied.
    """

    def __init__(
        self,
        rows: int,
        inner: int,
        gates: int,
        width: int,
        dtype: DTypeLike,
        most_pieces: int = 1,
        upright: bool = True,
    ) -> None:
        pieces, block = _block_sizes(rows, inner, width, most_pieces) if rows > 1 else (1, width)
        out = buffers.empty((pieces, gates, rows, width), dtype)
        self.out = out if rows > 1 else out[:, :, 0]
        self._target = out.reshape(pieces, gates, rows, -1, block).swapaxes(2, 3)
        shape = (pieces, gates, width // block, inner // pieces, block)
        self._blocks = buffers.empty(shape if rows > 1 else (0,), dtype)
        self._skewed = None if upright or rows == 1 else buffers.skewed((gates * width, inner), dtype)

    def operands(
        self, matrix: Array, scales: Array | None = None
    ) -> tuple[Callable[[Array, Array, Array], object], Array, Array]:
        """(multiply, M, target): multiply(operand(x), M, target) writes `out`. Valid until the next call.

        Each gate's columns of M are multiplied by its number of `scales`, (G,), if there are any.
        """
        if self.out.ndim == 3:  # a vector needs no copy, and has the least overhead
            if scales is not None:
                matrix = matrix * np.repeat(scales, matrix.shape[1] // len(scales))
            return np.ndarray.dot, matrix, self.out.reshape(-1)
        if self._skewed is not None:
            np.copyto(self._skewed, matrix.T)
            matrix = self._skewed.T
        pieces, gates, count, inner, block = self._blocks.shape
        source = matrix.reshape(pieces, inner, gates, count, block).transpose(0, 2, 3, 1, 4)
        if scales is None:
            np.copyto(self._blocks, source)
        else:
            np.multiply(source, scales[:, None, None, None], out=self._blocks)
        return np.matmul, self._blocks, self._target

    def operand(self, x: Array) -> Array:
        """A view of x, (B, N) or (N,), to multiply."""
        if x.ndim == 1:
            return x
        return x.reshape(len(x), len(self.out), -1).swapaxes(0, 1)[:, None, None]


def _block_sizes(rows: int, inner: int, width: int, most_pieces: int) -> tuple[int, int]:
    """(pieces of the sum, columns of a block): the fewest pieces of the widest block that is not copied."""
    for block in BLOCK_WIDTHS:
        for pieces in PIECES:
            fits = rows * (inner // pieces) * block <= UNPACKED
            if fits and pieces <= most_pieces and width % block == inner % pieces == 0:
                return pieces, block
    return 1, width


def flat(x: Array) -> Array:
    """(T, B, N) as (T*B, N), a view."""
    return x.reshape(-1, x.shape[-1])


class LayerTape:
    """What one layer's forward pass leaves for its backward pass, over T steps of B rows.

    Belongs to one forward pass at a time: the next one writes over it.

    Attributes:
        cache: (cached, T, B, H); its first G arrays are u, then what the cell makes of it.
        dv: (T, B, G*H), of the backward pass; du after it.
        states: (S, T+1, B, H); index 0 along time is the initial state.
        dstates: their gradients, same shape.
        outputs, doutputs: h of every step and the loss's gradient with respect to it, (T, B, H).
        output_rows, doutput_rows, previous_rows, dv_rows: those, h of the step before, and dv, (T*B, N).
    """

    def __init__(self, cell: Cell, steps: int, rows: int, hidden: int, dtype: DTypeLike) -> None:
        self.cell = cell
        self.shape = (steps, rows, hidden)
        gates = cell.gates
        self.scales = np.array(cell.scales, np.float32) if set(cell.scales) != {1} else None
        self.forward_product = BlockedProduct(rows, hidden, gates, hidden, dtype)
        self.backward_product = BlockedProduct(
            rows, gates * hidden, 1, hidden, dtype, PIECES[-1], upright=False
        )
        self.cache = buffers.empty((cell.cached, steps, rows, hidden), dtype)
        self.dv = buffers.empty((steps, rows, gates * hidden), dtype)
        self.states = buffers.zeros((cell.states, steps + 1, rows, hidden), dtype)
        self.dstates = buffers.zeros(self.states.shape, dtype)
        self.outputs, self.doutputs = self.states[0, 1:], self.dstates[0, 1:]
        self.output_rows, self.doutput_rows = flat(self.outputs), flat(self.doutputs)
        self.previous_rows, self.dv_rows = flat(self.states[0, :-1]), flat(self.dv)
        self._cut_steps()
        self._cut_spans(max(1, CACHED_ELEMENTS // (rows * hidden)))

    def _cut_steps(self) -> None:
        """Makes the views of each step."""
        cell, forward, backward = self.cell, self.forward_product, self.backward_product
        caches, states, dstates = _steps(self.cache), _steps(self.states), _steps(self.dstates)
        self.v = cut(forward.out[0], cell.halves)
        self.first = tuple(states[0])
        self.steps_forward = [
            (
                forward.operand(before[0]),
                cut(cache[: cell.gates], cell.halves),
                tuple(after),
                cut(cache, cell.kept),
            )
            for before, cache, after in zip(states[:-1], caches, states[1:], strict=True)
        ]
        self.back = [piece[0] for piece in backward.out]
        gates = _steps(self.gradients)
        steps_back = [
            (
                tuple(after),
                cut(cache, cell.slopes),
                cut(dv, cell.gradients),
                backward.operand(row[0]),
                tuple(before),
            )
            for after, cache, dv, row, before in zip(
                dstates[1:], caches, gates, _steps(self.dv[None]), dstates[:-1], strict=True
            )
        ]
        self.steps_back = steps_back[::-1]

    def _cut_spans(self, span: int) -> None:
        """Makes the views of `span` steps at a time, the last first, and of the whole sequence."""
        steps = self.shape[0]
        self.spans = []
        for end in range(steps, 0, -span):
            time = slice(max(0, end - span), end)
            arrays = self.states[:, :-1][:, time], self.states[:, 1:][:, time], self.cache[:, time]
            self.spans.append((tuple(map(tuple, arrays)), self.steps_back[steps - end : steps - time.start]))
        self.whole = self.doutputs, tuple(self.cache), tuple(self.gradients)

    @property
    def gradients(self) -> Array:
        """dv gate by gate, (G, T, B, H)."""
        steps, rows, hidden = self.shape
        return np.moveaxis(self.dv.reshape(steps, rows, -1, hidden), 2, 0)


def forward(weights: LayerWeights, inputs: Array, state: Array, tape: LayerTape) -> Array:
    """h_t for t = 1..T, shape (T, B, H), a view into the tape.

    `inputs` are ids (T, B), which stand for one-hot rows, or the outputs (T, B, H) of the layer below;
    `state` is (S, B, H).
    """
    multiply, W, target = tape.forward_product.operands(weights.W, tape.scales)
    _project(weights, inputs, tape)
    tape.states[:, 0] = state
    previous, step, v = tape.first, tape.cell.step, tape.v
    for h, u, after, cache in tape.steps_forward:
        multiply(h, W, target)
        step(u, v, previous, after, cache)
        previous = after
    return tape.outputs


def backward(weights: LayerWeights, gradients: LayerWeights, inputs: Array, tape: LayerTape) -> None:
    """Writes the gradients of U, W, b; leaves du in `tape.dv` and the initial state's in dstates[:, 0].

    `tape.doutputs`, (T, B, H), holds the loss's gradient with respect to h, and is used up. The last state's
    own gradient is taken to be zero: the sequence is where back-propagation through time is truncated.
    """
    multiply, W_transposed, target = tape.backward_product.operands(weights.W.T)
    tape.dstates[0, 0] = 0
    tape.dstates[1:, -1] = 0
    step_backward, add, pieces = tape.cell.step_backward, np.add, tape.back
    for arrays, steps_back in tape.spans:
        tape.cell.local_derivatives(*arrays)
        for after, cache, dv, row, before in steps_back:
            step_backward(after, cache, dv, before)
            multiply(row, W_transposed, target)
            dh = before[0]
            for piece in pieces:
                add(dh, piece, dh)
    _weight_gradients(gradients, inputs, tape)


def input_gradient(weights: LayerWeights, tape: LayerTape, out: Array) -> None:
    """Writes the gradient with respect to a dense input (T, B, H), after `backward`: dx = du U^T."""
    tape.dv_rows.dot(weights.U.T, flat(out))


def _project(weights: LayerWeights, inputs: Array, tape: LayerTape) -> None:
    """u = x U + b for the whole sequence, times the cell's scales; a one-hot x picks a row of U."""
    gates, hidden = tape.cell.gates, tape.shape[2]
    u = tape.cache[:gates]
    U = weights.U.reshape(-1, gates, hidden).swapaxes(0, 1)
    b = weights.b.reshape(gates, 1, hidden)
    if tape.scales is not None:
        U, b = U * tape.scales[:, None, None], b * tape.scales[:, None, None]
    if inputs.ndim == 2 and inputs.size < len(weights.U):
        U.take(inputs, 1, u, "clip")
        np.add(u, b[:, None], out=u)
    elif inputs.ndim == 2:
        (U + b).take(inputs, 1, u, "clip")
    else:
        u = u.reshape(gates, -1, hidden)
        np.matmul(flat(inputs), U, out=u)
        np.add(u, b, out=u)


def _weight_gradients(gradients: LayerWeights, inputs: Array, tape: LayerTape) -> None:
    """dW = sum h_prev^T dv;  dU = sum x^T du;  db = sum du, over all steps and rows."""
    d = tape.dv_rows
    tape.previous_rows.T.dot(d, gradients.W)
    tape.cell.input_gradient(*tape.whole)
    if inputs.ndim == 2:
        one_hot_gradient(inputs, d, gradients.U)
        # each du went into exactly one row of dU
        np.ones(len(gradients.U), d.dtype).dot(gradients.U, gradients.b)
    else:
        flat(inputs).T.dot(d, gradients.U)
        np.ones(len(d), d.dtype).dot(d, gradients.b)


def _steps(x: Array) -> list[Array]:
    """(N, T, B, H) as a list over T of views (N, B, H), or (N, H) if there is one row."""
    return list(np.moveaxis(x[:, :, 0] if x.shape[2] == 1 else x, 1, 0))
