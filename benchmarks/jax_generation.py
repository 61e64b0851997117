"""The same network generating text in JAX: one compiled loop, `jit` of a `scan`, in one thread."""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

from functools import partial

import jax
import jax.numpy as jnp

jax.config.update("jax_platforms", "cpu")
UNROLLED = 1  # loop steps per iteration; 4 and 8 take longer to compile and are slower with one text


def elman(u, v, h):
    """The state after one step; u is the part of the gates from the input, (B, H), v that from the state."""
    return jnp.tanh(u + v)


def gru(u, v, h):
    """As in PyTorch: the reset gate is applied after the product."""
    (ur, uz, un), (vr, vz, vn) = jnp.split(u, 3, 1), jnp.split(v, 3, 1)
    r, z = jax.nn.sigmoid(ur + vr), jax.nn.sigmoid(uz + vz)
    n = jnp.tanh(un + r * vn)
    return n + z * (h - n)


@partial(jax.jit, static_argnames=("cell", "rows", "length"))
def write(parameters, key, cell, rows, length):
    """Ids (length, rows), sampled by inverting the cumulative distribution, like ours."""
    embedding, W, V, c = parameters

    def step(carry, uniform):
        h, ids = carry
        h = cell(embedding[ids], h @ W, h)
        weights = jnp.cumsum(jax.nn.softmax(h @ V + c), 1)
        ids = jnp.argmax(weights > uniform[:, None] * weights[:, -1:], 1)
        return (h, ids), ids

    start = jnp.zeros((rows, W.shape[0])), jnp.zeros(rows, jnp.int32)
    uniforms = jax.random.uniform(key, (length, rows))
    return jax.lax.scan(step, start, uniforms, unroll=UNROLLED)[1]


class JaxWriter:
    """A one-layer vanilla RNN or GRU with the parameters of one of ours."""

    def __init__(self, network):
        p = {name: jnp.asarray(value) for name, value in network.parameters.items()}
        self.cell = {"elman": elman, "gru": gru}[network.config.cell]
        self.parameters = p["layer0.U"] + p["layer0.b"], p["layer0.W"], p["V"], p["c"]
        self.key = jax.random.key(0)

    def write(self, rows, length):
        """Ids (length, rows); compiled on the first call for each size."""
        return write(self.parameters, self.key, self.cell, rows, length).block_until_ready()
