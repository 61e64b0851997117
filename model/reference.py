"""The model in its simplest form: every equation, with its derivative right below it.

It computes one row of text, one time step and one gate at a time. `cells.py`, `recurrent.py` and `network.py`
compute the same faster and for many rows, and the tests compare them with this file.

Each function returns its result and a function `backward`, which takes the loss's gradient with respect to
that result and returns the gradients with respect to the inputs. It differentiates the equations above it in
reverse order. The gradient d loss / d x is called dx and has the shape of x. Vectors are rows. Three rules
are all that is needed:

    y = x M            dx = dy M^T, dM = outer(x, dy)
    s = sigmoid(a)     da = ds s (1 - s)
    t = tanh(a)        da = dt (1 - t^2)
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import exp, log, outer, tanh

Array = np.ndarray
Gates = list[Array]  # a vector (H,) for each gate
State = list[Array]  # the state of a layer: [h], or [h, c] for an LSTM, each (H,)
States = list[State]  # one State for each layer
Tensors = dict[str, Array]  # parameters or their gradients, with the names and shapes of a checkpoint
Backward = Callable[..., Any]
Cell = Callable[[Gates, Gates, State], tuple[State, Backward]]


def sigmoid(a: Array) -> Array:
    return np.asarray(1 / (1 + exp(-a)))


# A gate takes u = x U + b from the layer below and v = h_prev W from the previous step. `backward` returns
# du, dv and the gradient of the previous state, without the part that reaches it through v.
def elman(u: Gates, v: Gates, previous: State) -> tuple[State, Backward]:
    h = tanh(u[0] + v[0])

    def backward(dstate: State) -> tuple[Gates, Gates, State]:
        [dh] = dstate
        da = dh * (1 - h**2)
        return [da], [da], [0 * dh]

    return [h], backward


def gru(u: Gates, v: Gates, previous: State) -> tuple[State, Backward]:
    (u_r, u_z, u_n), (v_r, v_z, v_n), [h_prev] = u, v, previous
    r = sigmoid(u_r + v_r)
    z = sigmoid(u_z + v_z)
    n = tanh(u_n + r * v_n)
    h = (1 - z) * n + z * h_prev

    def backward(dstate: State) -> tuple[Gates, Gates, State]:
        [dh] = dstate
        dz, dn, dh_prev = dh * (h_prev - n), dh * (1 - z), dh * z
        du_n = dn * (1 - n**2)
        dr, dv_n = du_n * v_n, du_n * r
        da_z = dz * z * (1 - z)
        da_r = dr * r * (1 - r)
        return [da_r, da_z, du_n], [da_r, da_z, dv_n], [dh_prev]

    return [h], backward


def lstm(u: Gates, v: Gates, previous: State) -> tuple[State, Backward]:
    (u_i, u_f, u_g, u_o), (v_i, v_f, v_g, v_o), [_, c_prev] = u, v, previous
    i = sigmoid(u_i + v_i)
    f = sigmoid(u_f + v_f)
    g = tanh(u_g + v_g)
    o = sigmoid(u_o + v_o)
    c = f * c_prev + i * g
    h = o * tanh(c)

    def backward(dstate: State) -> tuple[Gates, Gates, State]:
        dh, dc_next = dstate
        do, dc = dh * tanh(c), dh * o * (1 - tanh(c) ** 2) + dc_next
        df, dc_prev, di, dg = dc * c_prev, dc * f, dc * g, dc * i
        da_o = do * o * (1 - o)
        da_g = dg * (1 - g**2)
        da_f = df * f * (1 - f)
        da_i = di * i * (1 - i)
        return [da_i, da_f, da_g, da_o], [da_i, da_f, da_g, da_o], [0 * dh, dc_prev]

    return [h, c], backward


CELLS: dict[str, Cell] = {"elman": elman, "gru": gru, "lstm": lstm}


def layer(p: Tensors, name: str, cell: Cell, x: Array, previous: State) -> tuple[State, Backward]:
    U, W, b, h_prev = p[f"{name}.U"], p[f"{name}.W"], p[f"{name}.b"], previous[0]
    gates = len(b) // len(h_prev)
    u = x @ U + b
    v = h_prev @ W
    state, cell_backward = cell(np.split(u, gates), np.split(v, gates), previous)

    def backward(dstate: State) -> tuple[Array, State, Tensors]:
        of_u, of_v, (dh_direct, *dothers) = cell_backward(dstate)
        du, dv = np.concatenate(of_u), np.concatenate(of_v)
        dx, dh_prev = du @ U.T, dv @ W.T + dh_direct
        gradients = {f"{name}.U": outer(x, du), f"{name}.W": outer(h_prev, dv), f"{name}.b": du}
        return dx, [dh_prev, *dothers], gradients

    return state, backward


def step(p: Tensors, cell: Cell, character: int, previous: States) -> tuple[Array, States, Backward]:
    """Feeds one character through all layers. Returns the logits o of the next one and the new states."""
    one_hot = np.eye(len(p["c"]))[character]
    x = one_hot @ p["E"] if "E" in p else one_hot
    states, layers_backward = [], []
    for index, before in enumerate(previous):
        state, layer_backward = layer(p, f"layer{index}", cell, x, before)
        states.append(state)
        layers_backward.append(layer_backward)
        h = x = state[0]
    o = h @ p["V"] + p["c"]

    def backward(do: Array, dstates: States) -> tuple[States, Tensors]:
        gradients, dprevious = {"V": outer(h, do), "c": do}, []
        dx = do @ p["V"].T
        for layer_backward, (dh, *dothers) in zip(layers_backward[::-1], dstates[::-1], strict=True):
            dx, dbefore, of_layer = layer_backward([dh + dx, *dothers])
            dprevious.append(dbefore)
            gradients |= of_layer
        gradients["E"] = outer(one_hot, dx)  # ignored if the network has no embedding
        return dprevious[::-1], gradients

    return o, states, backward


def loss_and_gradients(
    p: Tensors, cell: Cell, inputs: Sequence[int], targets: Sequence[int], states: States
) -> tuple[float, Tensors, States, States]:
    """The summed loss in nats, its gradients, the final states, and the gradients of the initial states."""
    loss, steps = 0.0, []
    for character, target in zip(inputs, targets, strict=True):
        o, states, step_backward = step(p, cell, character, states)
        probabilities = exp(o) / exp(o).sum()
        loss -= log(probabilities[target])
        do = probabilities - np.eye(len(o))[target]
        steps.append((do, step_backward))
    gradients = {name: 0 * values for name, values in p.items()}
    dstates = [[0 * x for x in state] for state in states]  # truncated: no gradient from after the last step
    for do, step_backward in reversed(steps):
        dstates, of_step = step_backward(do, dstates)
        gradients = {name: gradients[name] + of_step[name] for name in p}
    return loss, gradients, states, dstates
