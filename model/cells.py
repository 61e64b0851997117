"""The gate equations of the Elman, GRU and LSTM cells, forward and backward, one time step at a time.

`reference.py` has the same equations in readable form; this file computes them for B rows at once, in
preallocated arrays. The weights, the matrix products and the loop over time are in `recurrent.py`, which is
the same for every cell.

A cell takes its pre-activations in two parts, `u` = x U + b from the input and `v` = h W from the previous
output, each for all gates, (G, B, H). It writes all results into arrays that the caller owns. A step is so
short that slicing an array takes as long as adding to it, so a cell declares which slices it needs and the
caller makes them once, with `cut`.

How to read the code: `add(x, y, out)` writes x + y into `out` and returns it, so a nested call is one
equation. `scratch` holds no value between equations. A name always means the same value: where an array is
overwritten, the name of its old value is deleted.

The logistic function is computed as sigmoid(x) = (1 + tanh(x / 2)) / 2, which cannot overflow and lets one
tanh call compute all gates. The division by 2 is done in the weights: the caller multiplies the
pre-activations by the cell's `scales`. Halving is exact, so this does not change a single bit of the result.

Backward: each gate's pre-activation affects the loss only through the new state of the same step. Its
gradient is therefore that state's gradient times a *local derivative*, which is known once the forward pass
is over. `local_derivatives` computes these for many steps together; `step_backward` is then a few
multiplications. docs/backprop.md derives each line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy import add, copyto, multiply, subtract, tanh  # global names: faster to look up than np.add
from numpy.typing import NDArray

Array = NDArray[Any]  # float32, float64, or complex128 during a complex-step check
Arrays = Sequence[Array]
Cuts = tuple[int | slice, ...]
HALF = np.array(0.5, np.float32)  # an array, because NumPy is slower with Python numbers
ONE = np.array(1, np.float32)


def cut(array: Array, cuts: Cuts) -> tuple[Array, ...]:
    """Returns a view of `array` for each index or slice of its first axis."""
    return tuple(array[piece] for piece in cuts)


class Cell(Protocol):
    """The gate equations of one recurrent cell. Stateless.

    Attributes:
        gates: G, the number of blocks of H columns in U, W and b.
        states: S, the number of state arrays carried to the next step; the first is the output h.
        cached: the number of arrays that a step keeps for the backward pass.
        scales: for each gate, the factor that the caller multiplies u and v by.
        biases: for each gate, the initial value of b under uniform initialisation.
        halves: slices of u and v, (G, B, H), that `step` takes.
        kept: slices of the cache, (cached, B, H), that `step` takes.
        slopes: slices of the cache that `step_backward` takes.
        gradients: slices of dv, (G, B, H), that `step_backward` takes.
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
        """Computes the S new states (B, H) of one step from u, v and the S previous states.

        Writes only `state`, `cache` and `scratch` (B, H). The first G arrays of the cache may be u itself,
        and `state` may be `previous`.
        """
        ...

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """Replaces the cache of T steps, arrays (T, B, H), with the local derivatives, in place."""
        ...

    def step_backward(
        self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays, scratch: Array
    ) -> None:
        """Computes the gradients of one step. `dv` is with respect to v before it is multiplied by `scales`.

        Adds to dprevious[0] the gradient of h other than through v, and writes the gradients of the other
        states. `dprevious` and `dstate` must be different arrays.
        """
        ...

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """Replaces dv of a whole sequence, G arrays (T, B, H), with du, in place."""
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
    """The GRU whose reset gate is applied after the matrix product, as in cuDNN and PyTorch.

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
        """Cache: from (r, z, n, v_n, -, -) to (dh/dv_r, z, dh/dv_z, -, dh/dv_n, dh/du_n)."""
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
        multiply(dh, by_v, dv[0])  # dv = dh (dh/dv), for all gates
        add(dh_prev, multiply(dh, z, scratch), dh_prev)  # dh_prev += dh z, the path that bypasses the gates

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """r and z depend on u + v, so their du = dv; only n differs: du_n = dh (dh/du_n)."""
        multiply(dh, cache[5], dv[2])


class LSTM:
    """i, f, o = sigmoid(u + v);  g = tanh(u_g + v_g);  c = f c_prev + i g;  h = o tanh(c).

    Gate order i, f, g, o; state (h, c). Cache: i, f, g, o, tanh(c), and one array for local derivatives.
    """

    gates, states, cached = 4, 2, 6
    scales: tuple[float, ...] = (0.5, 0.5, 1, 0.5)
    biases: tuple[float, ...] = (0, 1, 0, 0)  # forget gates start open (Jozefowicz et al., 2015)
    halves: Cuts = (slice(None),)
    kept: Cuts = (slice(4), slice(2), 0, 1, 2, 3, 4)
    slopes: Cuts = (slice(3), 3, 4, 5)
    gradients: Cuts = (slice(3), 3)

    def step(
        self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays, scratch: Array
    ) -> None:
        c_prev, (h, c) = previous[1], state
        gates, i_f, i, f, g, o, tanh_c = cache
        tanh(add(u[0], v[0], gates), gates)  # g = tanh(u + v); of the others, tanh of half
        _sigmoid(i_f)  # i, f = sigmoid(u + v)
        _sigmoid(o)  # o = sigmoid(u + v)
        add(multiply(f, c_prev, c), multiply(i, g, scratch), c)  # c = f c_prev + i g
        multiply(o, tanh(c, tanh_c), h)  # h = o tanh(c)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """Cache: from (i, f, g, o, tanh c, -) to (dc/dv_i, dc/dv_f, dc/dv_g, dh/dv_o, dh/dc, f)."""
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
        """Every gate depends on u + v, so du = dv."""


CELLS: dict[str, Cell] = {"elman": Elman(), "gru": GRU(), "lstm": LSTM()}


def _sigmoid(tanh_of_half: Array) -> None:
    """Converts tanh(x / 2) to sigmoid(x) = (1 + tanh(x / 2)) / 2, in place."""
    add(multiply(tanh_of_half, HALF, tanh_of_half), HALF, tanh_of_half)


def _times_one_minus(x: Array, y: Array, out: Array) -> Array:
    """Writes x (1 - y) = x - x y into `out`, which may be y."""
    product = multiply(x, y, out)
    return subtract(x, product, out)
