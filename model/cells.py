"""The gate arithmetic of the Elman, GRU and LSTM cells, forward and backward, one step at a time.

`reference.py` has the same equations to read; this file computes them for B rows at once, into arrays that
are used again. Weights, products and the loop over time are in `recurrent.py`, once for every cell.

A cell gets the two halves of its pre-activations, `u` = x U + b from the input and `v` = h W from the
previous output, for all gates at once, (G, B, H). Everything is written into arrays that the caller owns.
A step is so short that cutting an array costs as much as adding to it; so a cell says once how it wants its
arrays cut, and their owner cuts them once, with `cut`.

How to read a line: `add(x, y, out)` writes x + y into `out` and returns it, so a call inside a call is one
equation. `scratch` is an array of no meaning between two equations. A name that holds a value keeps it; where
an array is written over, the name of its old value is deleted.

The logistic function is computed as sigmoid(x) = (1 + tanh(x / 2)) / 2, which cannot overflow, and lets all
gates go through one tanh. The x / 2 is in the weights: a cell is given pre-activations that were multiplied
by its `scales`, which changes no bit of the result, because halving is exact.

Backward. Each gate's pre-activation reaches the loss only through the step's own new state, so its gradient
is that state's gradient times a *local derivative*, a number per unit known as soon as the forward pass is
over. `local_derivatives` computes them for a whole sequence at once; `step_backward` is then a handful of
products. docs/backprop.md derives each line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy import add, copyto, multiply, subtract, tanh  # looked up thousands of times an update
from numpy.typing import NDArray

Array = NDArray[Any]  # float32, float64, or complex128 during a complex-step check
Arrays = Sequence[Array]
Cuts = tuple[int | slice, ...]
HALF, ONE = (
    np.array(0.5, np.float32),
    np.array(1, np.float32),
)  # arrays: NumPy takes longer over Python's own numbers


def cut(array: Array, cuts: Cuts) -> tuple[Array, ...]:
    """Views of an array's first axis."""
    return tuple(array[piece] for piece in cuts)


class Cell(Protocol):
    """Gate arithmetic of one recurrent cell. Stateless.

    Attributes:
        gates: G, blocks of H columns in U, W and b.
        states: S, arrays of state a step passes on; the first is the output h.
        cached: arrays a step keeps for the backward pass.
        scales: what each gate's pre-activation, both halves, is multiplied by before the cell gets it.
        biases: what each gate's b is at first, where the initialisation is uniform.
        halves: how `step` takes u and v, (G, B, H).
        kept: how `step` takes its cache, (cached, B, H).
        slopes: how `step_backward` takes it.
        gradients: how `step_backward` takes dv, (G, B, H).
    """

    gates: int
    states: int
    cached: int
    scales: tuple[float, ...]
    biases: tuple[float, ...]
    halves: Cuts
    kept: Cuts
    slopes: Cuts
    gradients: Cuts

    def step(
        self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays, scratch: Array
    ) -> None:
        """One step forward: from the halves u and v and S previous states (B, H) to S new states.

        Writes `state`, `cache` and `scratch` (B, H), nothing else. The first G arrays of the cache may be u,
        and `state` may be `previous`.
        """
        ...

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """Turns the cache of several steps, arrays (T, B, H), into local derivatives, in place."""
        ...

    def step_backward(
        self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays, scratch: Array
    ) -> None:
        """One step back: writes the gradients `dv`, with respect to u + v and not what `scales` made of it.

        Adds to dprevious[0] what reaches h other than through v, and writes the other states' gradients.
        `dprevious` and `dstate` are not the same arrays.
        """
        ...

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """Turns dv of a whole sequence, G arrays (T, B, H), into du, in place."""
        ...


class Elman:
    """h = tanh(u + v)."""

    gates, states, cached = 1, 1, 1
    scales: tuple[float, ...] = (1,)
    biases: tuple[float, ...] = (0,)
    halves: Cuts = (0,)
    kept: Cuts = ()
    slopes: Cuts = (0,)
    gradients: Cuts = (0,)

    def step(
        self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays, scratch: Array
    ) -> None:
        h = state[0]
        tanh(add(u[0], v[0], h), h)  # h = tanh(u + v)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        h, by_v = state[0], cache[0]
        subtract(ONE, multiply(h, h, by_v), by_v)  # dh/dv = 1 - h^2

    def step_backward(
        self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays, scratch: Array
    ) -> None:
        multiply(dstate[0], cache[0], dv[0])  # dv = dh (dh/dv)

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """a = u + v, so du = dv."""


class GRU:
    """The GRU with the reset gate after the product, as cuDNN and PyTorch have it.

    r = sigmoid(u_r + v_r);  z = sigmoid(u_z + v_z);  n = tanh(u_n + r v_n);  h = n + z (h_prev - n).

    Cache: r, z, n, v_n, and two arrays for local derivatives.
    """

    gates, states, cached = 3, 1, 6
    scales: tuple[float, ...] = (0.5, 0.5, 1)
    biases: tuple[float, ...] = (0, 0, 0)
    halves: Cuts = (slice(2), 2)
    kept: Cuts = (slice(2), 0, 1, 2, 3)
    slopes: Cuts = (slice(0, 5, 2), 1)
    gradients: Cuts = (slice(None),)

    def step(
        self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays, scratch: Array
    ) -> None:
        (u_rz, u_n), (v_rz, v_n), h_prev, h = u, v, previous[0], state[0]
        rz, r, z, n, kept_v_n = cache
        _sigmoid(tanh(add(u_rz, v_rz, rz), rz))  # r, z = sigmoid(u + v)
        copyto(kept_v_n, v_n)
        tanh(add(u_n, multiply(r, v_n, scratch), scratch), n)  # n = tanh(u_n + r v_n)
        add(multiply(subtract(h_prev, n, scratch), z, scratch), n, h)  # h = n + z (h_prev - n)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """From (r, z, n, v_n, -, -) to (dh/dv_r, z, dh/dv_z, -, dh/dv_n, dh/du_n)."""
        h, (r, z, n, v_n, _, _) = state[0], cache
        slope = subtract(ONE, multiply(n, n, cache[4]), cache[4])  # 1 - n^2
        one_minus_z = subtract(ONE, z, cache[5])
        multiply(subtract(h, n, cache[2]), one_minus_z, cache[2])  # dh/dv_z = (h - n)(1 - z)
        del n
        by_u_n = multiply(slope, one_minus_z, cache[5])  # dh/du_n = (1 - z)(1 - n^2)
        del one_minus_z
        by_v_n = multiply(by_u_n, r, cache[4])  # dh/dv_n = dh/du_n r
        del slope
        by_r = multiply(by_v_n, v_n, cache[3])
        del v_n
        _times_one_minus(by_r, r, out=cache[0])  # dh/dv_r = dh/dv_n v_n (1 - r)

    def step_backward(
        self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays, scratch: Array
    ) -> None:
        dh, (by_v, z), dh_prev = dstate[0], cache, dprevious[0]
        multiply(dh, by_v, dv[0])  # dv = dh (dh/dv), all gates at once
        add(dh_prev, multiply(dh, z, scratch), dh_prev)  # dh_prev += dh z, around the gates

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """r and z get u + v; only n has another slope for u: du_n = dh (dh/du_n)."""
        multiply(dh, cache[5], dv[2])


class LSTM:
    """i, f, o = sigmoid(u + v);  g = tanh(u_g + v_g);  c = f c_prev + i g;  h = o tanh(c).

    Gate order i, f, g, o; state (h, c). Cache: i, f, g, o, tanh(c), and one array for local derivatives.
    """

    gates, states, cached = 4, 2, 6
    scales: tuple[float, ...] = (0.5, 0.5, 1, 0.5)
    biases: tuple[float, ...] = (0, 1, 0, 0)  # forget gates are open at first (Jozefowicz et al., 2015)
    halves: Cuts = (slice(None),)
    kept: Cuts = (slice(4), slice(2), 0, 1, 2, 3, 4)
    slopes: Cuts = (slice(3), 3, 4, 5)
    gradients: Cuts = (slice(3), 3)

    def step(
        self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays, scratch: Array
    ) -> None:
        c_prev, (h, c) = previous[1], state
        gates, i_f, i, f, g, o, tanh_c = cache
        tanh(add(u[0], v[0], gates), gates)  # g = tanh(u + v), and the others are halfway
        _sigmoid(i_f)  # i, f = sigmoid(u + v)
        _sigmoid(o)  # o = sigmoid(u + v)
        add(multiply(f, c_prev, c), multiply(i, g, scratch), c)  # c = f c_prev + i g
        multiply(o, tanh(c, tanh_c), h)  # h = o tanh(c)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """From (i, f, g, o, tanh c, -) to (dc/dv_i, dc/dv_f, dc/dv_g, dh/dv_o, dh/dc, f)."""
        h, c_prev, (i, f, g, o, tanh_c, _) = state[0], previous[1], cache
        i_g = multiply(i, g, cache[5])
        subtract(i, multiply(i_g, g, cache[2]), cache[2])  # dc/dv_g = i (1 - g^2)
        del g
        _times_one_minus(i_g, i, out=cache[0])  # dc/dv_i = g i (1 - i)
        del i, i_g
        copyto(cache[5], f)
        multiply(_times_one_minus(cache[5], f, out=cache[1]), c_prev, cache[1])  # dc/dv_f = c_prev f (1 - f)
        del f
        subtract(o, multiply(h, tanh_c, cache[4]), cache[4])  # dh/dc = o (1 - tanh^2 c) = o - h tanh c
        del tanh_c
        _times_one_minus(h, o, out=cache[3])  # dh/dv_o = tanh c o (1 - o) = h (1 - o)

    def step_backward(
        self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays, scratch: Array
    ) -> None:
        (dh, dc_next), (by_v, by_o, by_c, f) = dstate, cache
        dc = add(dc_next, multiply(dh, by_c, scratch), scratch)  # dc = dc_next + dh (dh/dc)
        multiply(dc, by_v, dv[0])  # dv = dc (dc/dv) for i, f, g
        multiply(dh, by_o, dv[1])  # dv_o = dh (dh/dv_o)
        multiply(dc, f, dprevious[1])  # dc_prev = dc f

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """Every gate gets u + v, so du = dv."""


CELLS: dict[str, Cell] = {"elman": Elman(), "gru": GRU(), "lstm": LSTM()}


def _sigmoid(tanh_of_half: Array) -> None:
    """From tanh(x / 2) to sigmoid(x) = (1 + tanh(x / 2)) / 2, in place."""
    add(multiply(tanh_of_half, HALF, tanh_of_half), HALF, tanh_of_half)


def _times_one_minus(x: Array, y: Array, out: Array) -> Array:
    """x (1 - y) = x - x y; `out` may be y."""
    product = multiply(x, y, out)
    return subtract(x, product, out)
