"""One recurrent layer over a sequence: the only loop over time, forward and backward, for every cell.

Knows no gate equations (`cells.py`) and nothing of layers above or below (`network.py`).

The input's product is formed for the whole sequence before the loop, every weight's gradient is one product
for the whole sequence after it. Only h W, and back dv W^T, are left to the loop. Its arrays and their views
are in `layer_tape.py`, its products in `products.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.cells import Array, Arrays
from model.layer_tape import LayerTape, flat
from model.onehot import one_hot_gradient


@dataclass(frozen=True)
class LayerWeights:
    """One layer's weights, or their gradients: U (K or H, G*H), W (H, G*H), b (G*H,)."""

    U: Array
    W: Array
    b: Array


def forward(weights: LayerWeights, inputs: Array, state: Array, tape: LayerTape) -> Array:
    """h_t for t = 1..T, shape (T, B, H), a view into the tape.

    `inputs` are ids (T, B), which stand for one-hot rows, or the outputs (T, B, H) of the layer below;
    `state` is (S, B, H).
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
    """Writes the gradients of U, W, b; leaves du in `tape.dv` and the initial state's in dstates[:, 0].

    `tape.doutputs`, (T, B, H), holds the loss's gradient with respect to h, and is used up. The last state's
    own gradient is taken to be zero: the sequence is where back-propagation through time is truncated.
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
    tape.previous_rows.T.dot(tape.dv_rows, gradients.W)
    tape.cell.input_gradient(*tape.whole)
    du = tape.dv_rows  # which held dv until here
    if inputs.ndim == 2:
        one_hot_gradient(inputs, du, gradients.U)
        # each du went into exactly one row of dU
        np.ones(len(gradients.U), du.dtype).dot(gradients.U, gradients.b)
    else:
        flat(inputs).T.dot(du, gradients.U)
        np.ones(len(du), du.dtype).dot(du, gradients.b)
