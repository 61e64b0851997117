"""The buffers of one layer's forward and backward passes, and the views of each step, made once and reused.

A step is so short that slicing its arrays would take longer than computing with them. All buffers are aligned
to cache lines. Local derivatives are computed for a few steps at a time, while those are in the CPU's cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from model import buffers
from model.cells import Array, Arrays, Cell, cut
from model.products import PIECES, BlockedProduct

CACHED_ELEMENTS = 2**16  # of one array in a span of steps, so that the span fits in the CPU cache


def flat(x: Array) -> Array:
    """A view of (T, B, N) as (T*B, N)."""
    return x.reshape(-1, x.shape[-1])


class StepForward(NamedTuple):
    """Views of one step's arrays for the forward pass."""

    h_prev: Array
    u: Arrays
    state: Arrays
    cache: Arrays


class StepBackward(NamedTuple):
    """Views of one step's arrays for the backward pass."""

    dstate: Arrays
    cache: Arrays
    dv: Arrays
    dv_row: Array
    dprevious: Arrays


class LayerTape:
    """The values that one layer's forward pass keeps for its backward pass, over T steps of B rows.

    It holds one forward pass; the next one overwrites it.

    Attributes:
        cache: (cached, T, B, H); the first G arrays are u, until the cell overwrites them.
        dv: (T, B, G*H) during the backward pass; du after it.
        states: (S, T+1, B, H); index 0 along time is the initial state.
        dstates: the gradients of `states`, same shape.
        outputs, doutputs: h of every step and its gradient, (T, B, H).
        output_rows, doutput_rows: the same as (T*B, H).
        previous_rows, dv_rows: h of the previous step, (T*B, H), and dv, (T*B, G*H).
        v: slices of h W of the current step, for the cell.
        first: the initial state.
        dh_pieces: the partial sums of dv W^T of the current step.
        steps_forward: the views of each step, in the order of the forward pass.
        spans: for a few steps at a time, in reverse order: the arguments of `local_derivatives`, and the
            views of each step.
        scratch: (B, H), or (H,) for one row.
    """

    def __init__(self, cell: Cell, steps: int, rows: int, hidden: int, dtype: DTypeLike) -> None:
        self.cell = cell
        self.shape = (steps, rows, hidden)
        gates = cell.gates
        self.scales = np.array(cell.scales, np.float32) if set(cell.scales) != {1} else None
        self.forward_product = BlockedProduct(rows, hidden, gates, hidden, dtype)
        self.backward_product = BlockedProduct(
            rows, gates * hidden, 1, hidden, dtype, PIECES[-1], upright=False
        )
        self.cache = buffers.empty((cell.cached, steps, rows, hidden), dtype)
        self.dv = buffers.empty((steps, rows, gates * hidden), dtype)
        self.states = buffers.zeros((cell.states, steps + 1, rows, hidden), dtype)
        self.dstates = buffers.zeros(self.states.shape, dtype)
        self.outputs, self.doutputs = self.states[0, 1:], self.dstates[0, 1:]
        self.output_rows, self.doutput_rows = flat(self.outputs), flat(self.doutputs)
        self.previous_rows, self.dv_rows = flat(self.states[0, :-1]), flat(self.dv)
        self.scratch = buffers.empty((rows, hidden) if rows > 1 else (hidden,), dtype)
        self.v = cut(self.forward_product.out[0], cell.halves)
        self.dh_pieces = [piece[0] for piece in self.backward_product.out]
        self._cut_steps()
        self._cut_spans(max(1, CACHED_ELEMENTS // (rows * hidden)))

    def _cut_steps(self) -> None:
        """Makes the views of each step, for both passes."""
        cell, forward, backward = self.cell, self.forward_product, self.backward_product
        caches, states, dstates = _steps(self.cache), _steps(self.states), _steps(self.dstates)
        self.first = tuple(states[0])
        steps_forward = [
            StepForward(
                h_prev=forward.operand(before[0]),
                u=cut(cache[: cell.gates], cell.halves),
                state=tuple(after),
                cache=cut(cache, cell.kept),
            )
            for before, cache, after in zip(states[:-1], caches, states[1:], strict=True)
        ]
        gates = _steps(self.gradients)
        steps_back = [
            StepBackward(
                dstate=tuple(after),
                cache=cut(cache, cell.slopes),
                dv=cut(dv, cell.gradients),
                dv_row=backward.operand(row[0]),
                dprevious=tuple(before),
            )
            for after, cache, dv, row, before in zip(
                dstates[1:], caches, gates, _steps(self.dv[None]), dstates[:-1], strict=True
            )
        ]
        # unpacking a plain tuple takes half as long as unpacking a named one
        self.steps_forward: list[tuple[Any, ...]] = [tuple(step) for step in steps_forward]
        self.steps_back: list[tuple[Any, ...]] = [tuple(step) for step in reversed(steps_back)]

    def _cut_spans(self, span: int) -> None:
        """Makes the views of `span` steps at a time, in reverse order, and of the whole sequence."""
        steps = self.shape[0]
        self.spans = []
        for end in range(steps, 0, -span):
            time = slice(max(0, end - span), end)
            arrays = self.states[:, :-1][:, time], self.states[:, 1:][:, time], self.cache[:, time]
            self.spans.append((tuple(map(tuple, arrays)), self.steps_back[steps - end : steps - time.start]))
        self.whole = self.doutputs, tuple(self.cache), tuple(self.gradients)

    @property
    def gradients(self) -> Array:
        """A view of dv as (G, T, B, H)."""
        steps, rows, hidden = self.shape
        return np.moveaxis(self.dv.reshape(steps, rows, -1, hidden), 2, 0)


def _steps(x: Array) -> list[Array]:
    """(N, T, B, H) as a list over T of views (N, B, H), or (N, H) for one row."""
    return list(np.moveaxis(x[:, :, 0] if x.shape[2] == 1 else x, 1, 0))
