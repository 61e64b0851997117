"""One recurrent layer over a sequence: the loop over time, forward and backward, for any cell.

The gate equations are in `cells.py`, the stack of layers is in `network.py`, the buffers are in
`layer_tape.py` and the matrix products in `products.py`.

x U is computed for the whole sequence before the loop, and each weight gradient in one product after it. The
loop itself only computes h W forward and dv W^T backward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.cells import Array, Arrays
from model.layer_tape import LayerTape, flat
from model.onehot import one_hot_gradient


@dataclass(frozen=True)
class LayerWeights:
    """One layer's weights or their gradients: U (K or H, G*H), W (H, G*H) and b (G*H,)."""

    U: Array
    W: Array
    b: Array


def forward(weights: LayerWeights, inputs: Array, state: Array, tape: LayerTape) -> Array:
    """Computes h_1 to h_T, (T, B, H), as a view of the tape.

    Args:
        weights: of this layer.
        inputs: ids (T, B), used as one-hot rows, or the outputs (T, B, H) of the layer below.
        state: the initial state, (S, B, H).
        tape: keeps what `backward` needs.
    """
    multiply, W, target = tape.forward_product.operands(weights.W, tape.scales)
    _project(weights, inputs, tape)
    tape.states[:, 0] = state
    step, v, scratch = tape.cell.step, tape.v, tape.scratch
    previous: Arrays = tape.first
    for h_prev, u, state_now, cache in tape.steps_forward:
        multiply(h_prev, W, target)  # v = h_prev W
        step(u, v, previous, state_now, cache, scratch)
        previous = state_now
    return tape.outputs


def backward(weights: LayerWeights, gradients: LayerWeights, inputs: Array, tape: LayerTape) -> None:
    """Writes the gradients of U, W and b.

    Also leaves du in `tape.dv` and the gradient of the initial state in `tape.dstates[:, 0]`. `tape.doutputs`
    (T, B, H) must hold the loss's gradient with respect to h, and is overwritten. The gradient of the final
    state is zero, because back-propagation through time is truncated after each sequence.
    """
    multiply, W_transposed, target = tape.backward_product.operands(weights.W.T)
    tape.dstates[0, 0] = 0
    tape.dstates[1:, -1] = 0
    step_backward, add, pieces, scratch = tape.cell.step_backward, np.add, tape.dh_pieces, tape.scratch
    for arrays, steps in tape.spans:
        tape.cell.local_derivatives(*arrays)
        for dstate, cache, dv, dv_row, dprevious in steps:
            step_backward(dstate, cache, dv, dprevious, scratch)
            multiply(dv_row, W_transposed, target)
            dh_prev = dprevious[0]
            for piece in pieces:
                add(dh_prev, piece, dh_prev)  # dh_prev += dv W^T
    _weight_gradients(gradients, inputs, tape)


def input_gradient(weights: LayerWeights, tape: LayerTape, out: Array) -> None:
    """Writes dx = du U^T, (T, B, H), the gradient of the input, into `out`. Call it after `backward`."""
    tape.dv_rows.dot(weights.U.T, flat(out))


def _project(weights: LayerWeights, inputs: Array, tape: LayerTape) -> None:
    """Computes u = x U + b for the sequence, times the cell's scales. A one-hot x selects a row of U."""
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
    """Writes dW = sum h_prev^T dv, dU = sum x^T du and db = sum du, over all steps and rows."""
    tape.previous_rows.T.dot(tape.dv_rows, gradients.W)
    tape.cell.input_gradient(*tape.whole)
    du = tape.dv_rows  # `input_gradient` has replaced dv by du
    if inputs.ndim == 2:
        one_hot_gradient(inputs, du, gradients.U)
        # the sum over rows of dU, because each row of du was added to exactly one of them
        np.ones(len(gradients.U), du.dtype).dot(gradients.U, gradients.b)
    else:
        flat(inputs).T.dot(du, gradients.U)
        np.ones(len(du), du.dtype).dot(du, gradients.b)
