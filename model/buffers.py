"""Arrays that begin where the processor's vector registers like them to.

NumPy's own begin at any multiple of 16 bytes. A register of 64 bytes that is loaded from such a place comes
out of two lines of the cache: a product of small matrices took a third longer, an addition twice as long.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from model.cells import Array

LINE = 64  # bytes of a line of the cache


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array of this shape, its elements not set, that begins on a line of the cache."""
    return _on_a_line(np.empty(_bytes(shape, dtype) + LINE, np.uint8), shape, dtype)


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """The same, all 0."""
    return _on_a_line(np.zeros(_bytes(shape, dtype) + LINE, np.uint8), shape, dtype)


def _bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _on_a_line(memory: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    start = -memory.ctypes.data % LINE
    return memory[start : start + _bytes(shape, dtype)].view(dtype).reshape(shape)


def skewed(shape: tuple[int, int], dtype: DTypeLike) -> Array:
    """A matrix whose rows begin one line further on than they would without a gap.

    Elements below each other then lie in different places of the cache. Where a row is a power of two long
    they would push each other out: a transpose took six times as long.
    """
    rows, columns = shape
    return empty((rows, columns + whole_lines(1, dtype)), dtype)[:, :columns]


def whole_lines(count: int, dtype: DTypeLike) -> int:
    """The least number of elements, `count` or more, that fill whole lines."""
    in_a_line = LINE // np.dtype(dtype).itemsize
    return -(-count // in_a_line) * in_a_line
