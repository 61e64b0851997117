"""The networks written the plain way, a gate and a step at a time: what the fast code is compared with."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def elman_step(u, v, h):
    (u_a,), (v_a,) = u, v
    return (np.tanh(u_a + v_a),)


def gru_step(u, v, h):
    r = sigmoid(u[0] + v[0])
    z = sigmoid(u[1] + v[1])
    n = np.tanh(u[2] + r * v[2])
    return ((1 - z) * n + z * h,)


def lstm_step(u, v, h, c):
    i, f, o = sigmoid(u[0] + v[0]), sigmoid(u[1] + v[1]), sigmoid(u[3] + v[3])
    g = np.tanh(u[2] + v[2])
    c = f * c + i * g
    return o * np.tanh(c), c


STEPS = {"elman": (elman_step, 1), "gru": (gru_step, 3), "lstm": (lstm_step, 4)}


def forward(network, inputs, state):
    """Logits (T, B, K) and final state (L, S, B, H), one row, one step and one gate at a time."""
    config, p = network.config, network.parameters
    step, gates = STEPS[config.cell]
    logits = np.zeros((*inputs.shape, config.vocabulary), network.flat.dtype)
    state = state.copy()
    for row in range(inputs.shape[1]):
        for t in range(inputs.shape[0]):
            x = np.zeros(config.vocabulary, network.flat.dtype)
            x[inputs[t, row]] = 1
            for layer in range(config.layers):
                U, W, b = (p[f"layer{layer}.{name}"] for name in "UWb")
                if layer == 0 and config.embedding:
                    U = p["E"] @ U
                u = np.split(x @ U + b, gates)
                v = np.split(state[layer, 0, row] @ W, gates)
                state[layer, :, row] = step(u, v, *state[layer, :, row])
                x = state[layer, 0, row]
            logits[t, row] = x @ p["V"] + p["c"]
    return logits, state
