"""One recurrent layer over a sequence: the only loop over time, forward and backward, for every cell.

Knows no gate equations (`cells.py`) and nothing of layers above or below (`network.py`).

What makes it fast on a CPU: the input's product is formed for the whole sequence before the loop, every
weight's gradient is one product for the whole sequence after it; each step's product is made in blocks of
columns so small that the BLAS does not copy the weights first (`BlockedProduct`); all buffers, with the views
of each step, are made once in a `LayerTape` and used again; local derivatives are formed a few steps at a
time, while those steps are in the processor's cache; and one row alone is a vector, not a matrix of one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model.cells import Array, Cell

CACHED_ELEMENTS = 2**16  # elements of one array, over all steps of a span, that stay in the cache together
UNPACKED = 1_000_000  # multiplications up to which OpenBLAS multiplies matrices where they lie
NARROWEST = 32  # columns of a block: its kernels' width


@dataclass(frozen=True)
class LayerWeights:
    """One layer's weights, or their gradients: U (K or H, G*H), W (H, G*H), b (G*H,)."""

    U: Array
    W: Array
    b: Array


class BlockedProduct:
    """out = x M for many x (B, N) and one M (N, W), in blocks of M's columns.

    At a few rows a product takes less time than the copy of M that a BLAS makes for each large one; OpenBLAS
    leaves it out for small ones. Two kinds of memory are bought with that: the blocks of M, copied once for
    many products, and `out` (B, W), or (W,) if there is one row, for which nothing is copied.
    """

    def __init__(self, rows: int, inner: int, width: int, dtype: DTypeLike) -> None:
        self.out = np.empty((rows, width), dtype)
        self._count = 1
        while rows * inner * width > UNPACKED * self._count and width % (2 * NARROWEST * self._count) == 0:
            self._count *= 2
        self._blocks = np.empty((self._count, inner, width // self._count) if rows > 1 else 0, dtype)
        self._target = self.out.reshape(rows, self._count, -1).transpose(1, 0, 2)
        if rows == 1:
            self.out = self.out[0]

    def operands(self, matrix: Array) -> tuple[Callable[[Array, Array, Array], object], Array, Array]:
        """(multiply, M, target), so that multiply(x, M, target) writes `out`; valid until the next call."""
        if self.out.ndim == 1:
            return np.ndarray.dot, matrix, self.out  # a vector needs no copy, and has the least overhead
        for block, columns in zip(self._blocks, np.split(matrix, self._count, axis=1), strict=True):
            block[...] = columns
        return np.matmul, self._blocks, self._target


class LayerTape:
    """What one layer's forward pass leaves for its backward pass, over T steps of B rows.

    Belongs to one forward pass at a time: the next one writes over it.

    Attributes:
        states: (S, T+1, B, H); index 0 along time is the initial state.
        dstates: their gradients, same shape.
    """

    def __init__(self, cell: Cell, steps: int, rows: int, hidden: int, dtype: DTypeLike) -> None:
        self.cell = cell
        self.shape = (steps, rows, hidden)
        width = cell.gates * hidden
        self.u = np.empty((steps, rows, width), dtype)  # becomes dv, then du, on the way back
        self.forward_product = BlockedProduct(rows, hidden, width, dtype)
        self.backward_product = BlockedProduct(rows, width, hidden, dtype)
        self.states = np.zeros((cell.states, steps + 1, rows, hidden), dtype)
        self.dstates = np.zeros_like(self.states)
        self.cache = np.empty((cell.cached, steps, rows, hidden), dtype)
        self.span = max(1, CACHED_ELEMENTS // (rows * hidden))
        u_steps = _steps(self.u)
        self.u_gates = [_gates(step, cell.gates) for step in u_steps]
        self.v_gates = _gates(self.forward_product.out, cell.gates)
        self.state_steps = list(zip(*map(_steps, self.states), strict=True))
        self.cache_steps = list(zip(*map(_steps, self.cache), strict=True))
        dstates = list(zip(*map(_steps, self.dstates), strict=True))
        back = zip(dstates[1:], self.cache_steps, self.u_gates, u_steps, dstates[:-1], strict=True)
        self.steps_back = list(back)[::-1]

    @property
    def outputs(self) -> Array:
        """h of every step, (T, B, H)."""
        return self.states[0, 1:]

    @property
    def doutputs(self) -> Array:
        """The loss's gradient with respect to them, (T, B, H)."""
        return self.dstates[0, 1:]


def forward(weights: LayerWeights, inputs: Array, state: Array, tape: LayerTape) -> Array:
    """h_t for t = 1..T, shape (T, B, H), a view into the tape.

    `inputs` are ids (T, B), which stand for one-hot rows, or the outputs (T, B, H) of the layer below;
    `state` is (S, B, H).
    """
    cell, v_gates = tape.cell, tape.v_gates
    multiply, W, v = tape.forward_product.operands(weights.W)
    _project(weights, inputs, tape.u)
    tape.states[:, 0] = state
    previous, step = tape.state_steps[0], cell.step
    for u, after, cache in zip(tape.u_gates, tape.state_steps[1:], tape.cache_steps, strict=True):
        multiply(previous[0], W, v)
        step(u, v_gates, previous, after, cache)
        previous = after
    return tape.outputs


def backward(weights: LayerWeights, gradients: LayerWeights, inputs: Array, tape: LayerTape) -> None:
    """Writes the gradients of U, W, b; leaves du in `tape.u` and the initial state's in `tape.dstates[:, 0]`.

    `tape.doutputs`, (T, B, H), holds the loss's gradient with respect to h, and is used up. The last state's
    own gradient is taken to be zero: the sequence is where back-propagation through time is truncated.
    """
    cell, back = tape.cell, tape.backward_product.out
    multiply, W_transposed, target = tape.backward_product.operands(weights.W.T)
    tape.dstates[0, 0] = 0
    tape.dstates[1:] = 0
    step_backward, add = cell.step_backward, np.add
    for end in range(tape.shape[0], 0, -tape.span):
        start = max(0, end - tape.span)
        _local_derivatives(tape, start, end)
        for after, cache, u_gates, u, before in tape.steps_back[tape.shape[0] - end : tape.shape[0] - start]:
            step_backward(after, cache, u_gates, before)
            multiply(u, W_transposed, target)
            add(before[0], back, before[0])
    _weight_gradients(gradients, inputs, tape)


def _local_derivatives(tape: LayerTape, start: int, end: int) -> None:
    """The cell's local derivatives of steps `start` to `end`."""
    previous, state = tape.states[:, start:end], tape.states[:, start + 1 : end + 1]
    tape.cell.local_derivatives(tuple(previous), tuple(state), tuple(tape.cache[:, start:end]))


def input_gradient(weights: LayerWeights, tape: LayerTape, out: Array) -> None:
    """Writes the gradient with respect to a dense input (T, B, H), after `backward`: dx = du U^T."""
    _flat(tape.u).dot(weights.U.T, _flat(out))


def _project(weights: LayerWeights, inputs: Array, u: Array) -> None:
    """u = x U + b for the whole sequence; a one-hot x picks a row of U."""
    if inputs.ndim == 2:
        np.take(weights.U + weights.b, inputs, axis=0, out=u, mode="clip")
    else:
        np.matmul(_flat(inputs), weights.U, out=_flat(u))
        np.add(u, weights.b, out=u)


def _weight_gradients(gradients: LayerWeights, inputs: Array, tape: LayerTape) -> None:
    """dW = sum h_prev^T dv;  dU = sum x^T du;  db = sum du, over all steps and rows."""
    cell, d = tape.cell, _flat(tape.u)
    np.matmul(_flat(tape.states[0, :-1]).T, d, out=gradients.W)
    cell.input_gradient(tape.dstates[0, 1:], tuple(tape.cache), _gates(tape.u, cell.gates))
    if inputs.ndim == 2:
        np.matmul(_one_hot(inputs, len(gradients.U), d.dtype).T, d, out=gradients.U)
        np.add.reduce(gradients.U, axis=0, out=gradients.b)  # each du went into exactly one row of dU
    else:
        np.matmul(_flat(inputs).T, d, out=gradients.U)
        np.add.reduce(d, axis=0, out=gradients.b)


def _one_hot(ids: NDArray[np.integer], size: int, dtype: DTypeLike) -> Array:
    rows = np.zeros((ids.size, size), dtype)
    rows[np.arange(ids.size), ids.ravel()] = 1
    return rows


def _flat(x: Array) -> Array:
    """(T, B, N) as (T*B, N), a view."""
    return x.reshape(-1, x.shape[-1])


def _gates(x: Array, gates: int) -> tuple[Array, ...]:
    """Views of the G blocks of columns."""
    hidden = x.shape[-1] // gates
    return tuple(x[..., g * hidden : (g + 1) * hidden] for g in range(gates))


def _steps(x: Array) -> list[Array]:
    """(T, B, N) as a list over T of views (B, N), or (N,) if there is one row."""
    return list(x[:, 0] if x.shape[1] == 1 else x)
