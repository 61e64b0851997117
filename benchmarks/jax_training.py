"""The same network, loss and optimiser in JAX: one compiled function per update, in one thread."""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.own_training import CHARACTERS
from model.training import Training

jax.config.update("jax_platforms", "cpu")
BETAS, EPSILON = (0.9, 0.999), 1e-8


def elman(u, v, state):
    """(state after one step,); u is the part of the gates from the input, (B, G*H), v that from the state."""
    return (jnp.tanh(u + v),)


def gru(u, v, state):
    """As in PyTorch: the reset gate is applied after the product."""
    (ur, uz, un), (vr, vz, vn) = jnp.split(u, 3, 1), jnp.split(v, 3, 1)
    r, z = jax.nn.sigmoid(ur + vr), jax.nn.sigmoid(uz + vz)
    n = jnp.tanh(un + r * vn)
    return (n + z * (state[0] - n),)


def lstm(u, v, state):
    """The state is (h, c)."""
    i, f, g, o = jnp.split(u + v, 4, 1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


# step, number of gates, arrays in a state
CELLS = {"elman": (elman, 1, 1), "gru": (gru, 3, 1), "lstm": (lstm, 4, 2)}


def initial(config, gates):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {
        "U": (CHARACTERS, gates * config.hidden),
        "W": (config.hidden, gates * config.hidden),
        "V": (config.hidden, CHARACTERS),
    }
    bound = config.hidden**-0.5
    network = {
        name: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return network | {"b": jnp.zeros(gates * config.hidden), "c": jnp.zeros(CHARACTERS)}


@partial(jax.jit, static_argnames=("config",), donate_argnames=("network", "memory"))
def train(config, network, memory, count, inputs, targets, state):
    """One update: (network, memory, state, loss)."""
    cell = CELLS[config.cell][0]

    def loss_of(network):
        def step(state, ids):
            state = cell(network["U"][ids] + network["b"], state[0] @ network["W"], state)
            return state, state[0]

        last, hidden = jax.lax.scan(step, state, inputs)
        logp = jax.nn.log_softmax(hidden @ network["V"] + network["c"])
        losses = -jnp.take_along_axis(logp, targets[..., None], 2)
        return (losses.sum() if config.reduction == "sum" else losses.mean()), last

    (loss, state), gradient = jax.value_and_grad(loss_of, has_aux=True)(network)
    if config.clip == "value":
        gradient = jax.tree.map(lambda g: jnp.clip(g, -config.clip_at, config.clip_at), gradient)
    else:
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda g: g * jnp.minimum(1, config.clip_at / norm), gradient)
    network, memory = OPTIMISERS[config.optimizer](config, network, gradient, memory, count)
    return network, memory, state, loss


def adagrad(config, network, gradient, memory, count):
    total = jax.tree.map(lambda m, g: m + g * g, memory[0], gradient)
    network = jax.tree.map(
        lambda p, g, m: p - config.learning_rate * g / jnp.sqrt(m + EPSILON), network, gradient, total
    )
    return network, (total, memory[1])


def adamw(config, network, gradient, memory, count):
    first = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, memory[0], gradient)
    second = jax.tree.map(lambda m, g: BETAS[1] * m + (1 - BETAS[1]) * g * g, memory[1], gradient)

    def moved(p, m, v):
        scaled = (m / (1 - BETAS[0] ** count)) / (jnp.sqrt(v / (1 - BETAS[1] ** count)) + EPSILON)
        return p - config.learning_rate * (scaled + config.weight_decay * p)

    return jax.tree.map(moved, network, first, second), (first, second)


OPTIMISERS = {"adagrad": adagrad, "adamw": adamw}


def jax_update(config, text):
    batches = Training(config, *text).batches
    _, gates, arrays = CELLS[config.cell]
    network = initial(config, gates)
    memory = jax.tree.map(jnp.zeros_like, network), jax.tree.map(jnp.zeros_like, network)
    state, position = tuple(jnp.zeros((config.streams, config.hidden)) for _ in range(arrays)), 0

    def update():
        nonlocal network, memory, state, position
        window = batches.window(position)
        position += 1
        network, memory, state, loss = train(
            config, network, memory, float(position), window.inputs, window.targets, state
        )
        return float(loss)

    return update
