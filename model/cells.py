"""The gate arithmetic of the Elman, GRU and LSTM cells, forward and backward, one step at a time.

What is not here: weights, products, and the loop over time; `recurrent.py` has them, once for every cell.

A cell sees the two halves of its pre-activations, `u` = x U + b from the input and `v` = h W from the
previous output, gate by gate, each an array (B, H). Everything is written into arrays that the caller owns.

Backward. Each gate's pre-activation reaches the loss only through the step's own new state, so its gradient
is that state's gradient times a *local derivative*, a number per unit known as soon as the forward pass is
over. `local_derivatives` computes them for a whole sequence at once; `step_backward` is then a handful of
products. docs/backprop.md derives each line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy import add, copyto, multiply, subtract, tanh  # looked up thousands of times an update
from numpy.typing import NDArray

Array = NDArray[Any]  # float32, float64, or complex128 during a complex-step check
Arrays = Sequence[Array]


class Cell(Protocol):
    """Gate arithmetic of one recurrent cell. Stateless.

    Attributes:
        gates: G, blocks of H columns in U, W and b.
        states: S, arrays of state a step passes on; the first is the output h.
        cached: arrays a step keeps for the backward pass.
    """

    gates: int
    states: int
    cached: int

    def step(self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """One step forward: from G halves u and v and S previous states to S new states.

        All arrays are (B, H). `state` and `cache` are written, nothing else is.
        """
        ...

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """Turns the cache of a whole sequence, arrays (T, B, H), into local derivatives, in place."""
        ...

    def step_backward(self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays) -> None:
        """One step back: writes the G gradients `dv`, and adds to `dprevious` what does not pass through v.

        May use up `dstate[1:]` and `cache`; `dstate[0]` stays.
        """
        ...

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """Turns dv of a whole sequence, G arrays (T, B, H), into du, in place."""
        ...


class Elman:
    """h = tanh(u + v)."""

    gates, states, cached = 1, 1, 1

    def step(self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        h = state[0]
        add(u[0], v[0], h)
        tanh(h, h)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """dh/da = 1 - h^2."""
        h, slope = state[0], cache[0]
        multiply(h, h, slope)
        subtract(1, slope, slope)

    def step_backward(self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays) -> None:
        multiply(dstate[0], cache[0], dv[0])

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """a = u + v, so du = dv."""


class GRU:
    """The GRU with the reset gate behind the product, as cuDNN and PyTorch have it.

    r = sigmoid(u_r + v_r);  z = sigmoid(u_z + v_z);  n = tanh(u_n + r v_n);  h = n + z (h_prev - n).
    """

    gates, states, cached = 3, 1, 6

    def step(self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        (u_r, u_z, u_n), (v_r, v_z, v_n) = u, v
        h_prev, h = previous[0], state[0]
        r, z, n, kept_v_n = cache[:4]
        _sigmoid_of_sum(u_r, v_r, out=r)
        _sigmoid_of_sum(u_z, v_z, out=z)
        copyto(kept_v_n, v_n)
        multiply(r, v_n, n)
        add(n, u_n, n)
        tanh(n, n)
        subtract(h_prev, n, h)
        multiply(h, z, h)
        add(h, n, h)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """From (r, z, n, v_n, -, -) to (r, z, dh/du_n, dh/dv_n, dh/dv_z, dh/dv_r).

        dh/du_n = (1 - z)(1 - n^2);           dh/dv_n = dh/du_n r;
        dh/dv_z = (h_prev - n) z (1 - z) = (h - n)(1 - z);  dh/dv_r = dh/du_n v_n r (1 - r).
        """
        h = state[0]
        r, z, n, v_n, by_z, by_r = cache
        one_minus_z = by_r  # free until dh/dv_r is formed
        subtract(1, z, one_minus_z)
        subtract(h, n, by_z)
        multiply(by_z, one_minus_z, by_z)
        by_n = _one_minus_square(n)
        multiply(by_n, one_minus_z, by_n)
        _sigmoid_slope(r, out=by_r)
        multiply(by_r, v_n, by_r)
        multiply(by_r, by_n, by_r)
        multiply(by_n, r, v_n)

    def step_backward(self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays) -> None:
        """dv = dh * (dh/dv); around the gates, dh_prev += dh z."""
        dh = dstate[0]
        _, z, _, by_v_n, by_z, by_r = cache
        multiply(dh, by_r, dv[0])
        multiply(dh, by_z, dv[1])
        multiply(dh, by_v_n, dv[2])
        multiply(dh, z, z)
        add(dprevious[0], z, dprevious[0])

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """r and z see u + v; only n tells them apart: du_n = dh (dh/du_n)."""
        multiply(dh, cache[2], dv[2])


class LSTM:
    """i, f, o = sigmoid(u + v);  g = tanh(u_g + v_g);  c = f c_prev + i g;  h = o tanh(c).

    Gate order i, f, g, o; state (h, c).
    """

    gates, states, cached = 4, 2, 6

    def step(self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        c_prev, (h, c) = previous[1], state
        i, f, g, o, tanh_c, _ = cache
        _sigmoid_of_sum(u[0], v[0], out=i)
        _sigmoid_of_sum(u[1], v[1], out=f)
        add(u[2], v[2], g)
        tanh(g, g)
        _sigmoid_of_sum(u[3], v[3], out=o)
        multiply(i, g, tanh_c)
        multiply(f, c_prev, c)
        add(c, tanh_c, c)
        tanh(c, tanh_c)
        multiply(o, tanh_c, h)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """From (i, f, g, o, tanh c, -) to (dh/dv_o, f, dc/dv_g, dc/dv_f, dh/dc, dc/dv_i).

        dc/dv_i = g i (1 - i);  dc/dv_f = c_prev f (1 - f);  dc/dv_g = i (1 - g^2);
        dh/dv_o = tanh(c) o (1 - o);  dh/dc = o (1 - tanh^2 c).
        """
        c_prev = previous[1]
        i, f, g, o, tanh_c, by_i = cache
        _sigmoid_slope(i, out=by_i)
        multiply(by_i, g, by_i)
        by_g = _one_minus_square(g)
        multiply(by_g, i, by_g)
        by_o = i  # i is used up
        _sigmoid_slope(o, out=by_o)
        multiply(by_o, tanh_c, by_o)
        by_c = _one_minus_square(tanh_c)
        multiply(by_c, o, by_c)
        by_f = o  # o is used up
        _sigmoid_slope(f, out=by_f)
        multiply(by_f, c_prev, by_f)

    def step_backward(self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays) -> None:
        """dc += dh (dh/dc);  dv_i, dv_f, dv_g = dc * (dc/dv);  dv_o = dh (dh/dv_o);  dc_prev += dc f."""
        dh, dc = dstate
        by_o, f, by_g, by_f, by_c, by_i = cache
        multiply(dh, by_c, by_c)
        add(dc, by_c, dc)
        multiply(dc, by_i, dv[0])
        multiply(dc, by_f, dv[1])
        multiply(dc, by_g, dv[2])
        multiply(dh, by_o, dv[3])
        multiply(dc, f, f)
        add(dprevious[1], f, dprevious[1])

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """Every gate sees u + v, so du = dv."""


CELLS: dict[str, Cell] = {"elman": Elman(), "gru": GRU(), "lstm": LSTM()}


def _sigmoid_of_sum(u: Array, v: Array, out: Array) -> None:
    """sigmoid(x) = (1 + tanh(x / 2)) / 2, which cannot overflow."""
    add(u, v, out)
    multiply(out, 0.5, out)
    tanh(out, out)
    multiply(out, 0.5, out)
    add(out, 0.5, out)


def _sigmoid_slope(s: Array, out: Array) -> None:
    """The sigmoid's derivative in terms of its value: s (1 - s)."""
    subtract(1, s, out)
    multiply(out, s, out)


def _one_minus_square(x: Array) -> Array:
    """1 - x^2, in place: the derivative of tanh in terms of its value."""
    multiply(x, x, x)
    subtract(1, x, x)
    return x
