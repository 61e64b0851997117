"""The gate arithmetic of the Elman, GRU and LSTM cells, forward and backward, one step at a time.

What is not here: weights, products, and the loop over time; `recurrent.py` has them, once for every cell.

A cell sees the two halves of its pre-activations, `u` = x U + b from the input and `v` = h W from the
previous output, for all gates at once, (G, B, H). Everything is written into arrays that the caller owns.
A step is so short that cutting an array costs as much as adding to it; so a cell says once how it wants its
arrays cut, and whoever owns them cuts them once, with `cut`.

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
        scales: what each gate's pre-activation, both halves, is multiplied by before the cell sees it.
        halves: how `step` takes u and v, (G, B, H).
        kept: how `step` takes its cache, (cached, B, H).
        slopes: how `step_backward` takes it.
        gradients: how `step_backward` takes dv, (G, B, H).
    """

    gates: int
    states: int
    cached: int
    scales: tuple[float, ...]
    halves: Cuts
    kept: Cuts
    slopes: Cuts
    gradients: Cuts

    def step(self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """One step forward: from the halves u and v and S previous states (B, H) to S new states.

        `state` and `cache` are written, nothing else is. The first G arrays of the cache may be u, and
        `state` may be `previous`.
        """
        ...

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """Turns the cache of a whole sequence, arrays (T, B, H), into local derivatives, in place."""
        ...

    def step_backward(self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays) -> None:
        """One step back: writes the gradients `dv`, with respect to u + v and not what `scales` made of it.

        Adds to dprevious[0] what reaches h other than through v, and writes the other states' gradients. May
        use up `dstate[1:]` and `cache`; `dstate[0]` stays.
        """
        ...

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """Turns dv of a whole sequence, G arrays (T, B, H), into du, in place."""
        ...


class Elman:
    """h = tanh(u + v)."""

    gates, states, cached = 1, 1, 1
    scales: tuple[float, ...] = (1,)
    halves: Cuts = (0,)
    kept: Cuts = ()
    slopes: Cuts = (0,)
    gradients: Cuts = (0,)

    def step(self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        h = state[0]
        add(u[0], v[0], h)
        tanh(h, h)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """dh/da = 1 - h^2."""
        h, slope = state[0], cache[0]
        multiply(h, h, slope)
        subtract(ONE, slope, slope)

    def step_backward(self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays) -> None:
        multiply(dstate[0], cache[0], dv[0])

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """a = u + v, so du = dv."""


class GRU:
    """The GRU with the reset gate behind the product, as cuDNN and PyTorch have it.

    r = sigmoid(u_r + v_r);  z = sigmoid(u_z + v_z);  n = tanh(u_n + r v_n);  h = n + z (h_prev - n).
    """

    gates, states, cached = 3, 1, 6
    scales: tuple[float, ...] = (0.5, 0.5, 1)
    halves: Cuts = (slice(2), 2)
    kept: Cuts = (slice(2), 0, 1, 2, 3, 4)
    slopes: Cuts = (slice(0, 5, 2), 1)
    gradients: Cuts = (slice(None),)

    def step(self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        (u_rz, u_n), (v_rz, v_n) = u, v
        h_prev, h = previous[0], state[0]
        rz, r, z, n, kept_v_n, r_v_n = cache
        add(u_rz, v_rz, rz)
        tanh(rz, rz)
        _from_tanh(rz)
        copyto(kept_v_n, v_n)
        multiply(r, v_n, r_v_n)
        add(u_n, r_v_n, n)
        tanh(n, n)
        subtract(h_prev, n, h)
        multiply(h, z, h)
        add(h, n, h)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """From (r, z, n, v_n, -, -) to (dh/dv_r, z, dh/dv_z, -, dh/dv_n, dh/du_n).

        dh/du_n = (1 - z)(1 - n^2);           dh/dv_n = dh/du_n r;
        dh/dv_z = (h_prev - n) z (1 - z) = (h - n)(1 - z);  dh/dv_r = dh/dv_n v_n (1 - r).
        """
        h = state[0]
        r, z, n, v_n, by_v_n, by_u_n = cache
        slope, one_minus_z = by_v_n, by_u_n  # free until those are formed
        multiply(n, n, slope)
        subtract(ONE, slope, slope)
        subtract(ONE, z, one_minus_z)
        by_z = n
        subtract(h, n, by_z)
        multiply(by_z, one_minus_z, by_z)
        multiply(slope, one_minus_z, by_u_n)
        multiply(by_u_n, r, by_v_n)
        multiply(by_v_n, v_n, v_n)
        _times_one_minus(v_n, r, out=r)

    def step_backward(self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays) -> None:
        """dv = dh * (dh/dv), all gates at once; around the gates, dh_prev += dh z."""
        dh, (by_v, z) = dstate[0], cache
        multiply(dh, by_v, dv[0])
        multiply(dh, z, z)
        add(dprevious[0], z, dprevious[0])

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """r and z see u + v; only n tells them apart: du_n = dh (dh/du_n)."""
        multiply(dh, cache[5], dv[2])


class LSTM:
    """i, f, o = sigmoid(u + v);  g = tanh(u_g + v_g);  c = f c_prev + i g;  h = o tanh(c).

    Gate order i, f, g, o; state (h, c).
    """

    gates, states, cached = 4, 2, 6
    scales: tuple[float, ...] = (0.5, 0.5, 1, 0.5)
    halves: Cuts = (slice(None),)
    kept: Cuts = (slice(4), slice(2), 0, 1, 2, 3, 4)
    slopes: Cuts = (slice(3), 3, 4, 5)
    gradients: Cuts = (slice(3), 3)

    def step(self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        c_prev, (h, c) = previous[1], state
        gates, i_f, i, f, g, o, tanh_c = cache
        add(u[0], v[0], gates)
        tanh(gates, gates)
        _from_tanh(i_f)
        _from_tanh(o)
        multiply(i, g, tanh_c)
        multiply(f, c_prev, c)
        add(c, tanh_c, c)
        tanh(c, tanh_c)
        multiply(o, tanh_c, h)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """From (i, f, g, o, tanh c, -) to (dc/dv_i, dc/dv_f, dc/dv_g, dh/dv_o, dh/dc, f).

        dc/dv_i = i g (1 - i);       dc/dv_f = c_prev f (1 - f);    dc/dv_g = i (1 - g^2);
        dh/dv_o = tanh(c) o (1 - o) = h (1 - o);                    dh/dc = o (1 - tanh^2 c) = o - h tanh(c).
        """
        h, c_prev = state[0], previous[1]
        i, f, g, o, tanh_c, kept_f = cache
        i_g = kept_f  # free until f is kept there
        multiply(i, g, i_g)
        multiply(i_g, g, g)
        subtract(i, g, g)
        _times_one_minus(i_g, i, out=i)
        copyto(kept_f, f)
        _times_one_minus(kept_f, f, out=f)
        multiply(f, c_prev, f)
        multiply(h, tanh_c, tanh_c)
        subtract(o, tanh_c, tanh_c)
        _times_one_minus(h, o, out=o)

    def step_backward(self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays) -> None:
        """dc += dh (dh/dc);  dv_i, dv_f, dv_g = dc (dc/dv);  dv_o = dh (dh/dv_o);  dc_prev = dc f."""
        dh, dc = dstate
        by_v, by_o, by_c, f = cache
        multiply(dh, by_c, by_c)
        add(dc, by_c, dc)
        multiply(dc, by_v, dv[0])
        multiply(dh, by_o, dv[1])
        multiply(dc, f, dprevious[1])

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """Every gate sees u + v, so du = dv."""


CELLS: dict[str, Cell] = {"elman": Elman(), "gru": GRU(), "lstm": LSTM()}


def _from_tanh(x: Array) -> None:
    """From tanh(x / 2) to sigmoid(x), in place."""
    multiply(x, HALF, x)
    add(x, HALF, x)


def _times_one_minus(x: Array, y: Array, out: Array) -> None:
    """x (1 - y); `out` may be y."""
    multiply(x, y, out)
    subtract(x, out, out)
