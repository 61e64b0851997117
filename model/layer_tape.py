"""The memory of one layer's passes: all arrays, and the views of each step, cut once and used again.

A step is so short that cutting its arrays would take longer than computing with them. All buffers begin on a
line of the cache; local derivatives are formed a few steps at a time, while those steps are in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from model import buffers
from model.cells import Array, Arrays, Cell, cut
from model.products import PIECES, BlockedProduct

CACHED_ELEMENTS = 2**16  # elements of one array, over all steps of a span, that stay in the cache together


def flat(x: Array) -> Array:
    """(T, B, N) as (T*B, N), a view."""
    return x.reshape(-1, x.shape[-1])


class StepForward(NamedTuple):
    """Views of one step's arrays: what the loop forward multiplies by W and gives to the cell."""

    h_prev: Array
    u: Arrays
    state: Arrays
    cache: Arrays


class StepBackward(NamedTuple):
    """Views of one step's arrays: what the loop back gives to the cell and multiplies by the transposed W."""

    dstate: Arrays
    cache: Arrays
    dv: Arrays
    dv_row: Array
    dprevious: Arrays


class LayerTape:
    """What one layer's forward pass leaves for its backward pass, over T steps of B rows.

    Belongs to one forward pass at a time: the next one writes over it.

    Attributes:
        cache: (cached, T, B, H); its first G arrays are u, then what the cell makes of it.
        dv: (T, B, G*H), of the backward pass; du after it.
        states: (S, T+1, B, H); index 0 along time is the initial state.
        dstates: their gradients, same shape.
        outputs, doutputs: h of every step and the loss's gradient with respect to it, (T, B, H).
        output_rows, doutput_rows, previous_rows, dv_rows: those, h of the step before, and dv, (T*B, N).
        v: h W of the present step, as the cell takes it; `first`: the initial state.
        dh_pieces: dv W^T of the present step, to be added up.
        steps_forward: from the first to the last.
        spans: a few steps at a time, the last first: what `local_derivatives` takes, and the steps.
        scratch: (B, H), or (H,) if there is one row.
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
        """Makes the views of each step."""
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
        # a loop takes a plain tuple apart in half the time that a named one takes
        self.steps_forward: list[tuple[Any, ...]] = [tuple(step) for step in steps_forward]
        self.steps_back: list[tuple[Any, ...]] = [tuple(step) for step in reversed(steps_back)]

    def _cut_spans(self, span: int) -> None:
        """Makes the views of `span` steps at a time, the last first, and of the whole sequence."""
        steps = self.shape[0]
        self.spans = []
        for end in range(steps, 0, -span):
            time = slice(max(0, end - span), end)
            arrays = self.states[:, :-1][:, time], self.states[:, 1:][:, time], self.cache[:, time]
            self.spans.append((tuple(map(tuple, arrays)), self.steps_back[steps - end : steps - time.start]))
        self.whole = self.doutputs, tuple(self.cache), tuple(self.gradients)

    @property
    def gradients(self) -> Array:
        """dv gate by gate, (G, T, B, H)."""
        steps, rows, hidden = self.shape
        return np.moveaxis(self.dv.reshape(steps, rows, -1, hidden), 2, 0)


def _steps(x: Array) -> list[Array]:
    """(N, T, B, H) as a list over T of views (N, B, H), or (N, H) if there is one row."""
    return list(np.moveaxis(x[:, :, 0] if x.shape[2] == 1 else x, 1, 0))
