"""Arrays aligned to cache lines.

NumPy aligns arrays to 16 bytes only, so a load of a 64-byte vector register may touch two cache lines. That
makes a product of small matrices a third slower, and an addition take twice as long.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from model.cells import Array

LINE = 64  # bytes of a cache line


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An uninitialised array, aligned to a cache line."""
    return _on_a_line(np.empty(_bytes(shape, dtype) + LINE, np.uint8), shape, dtype)


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array of zeros, aligned to a cache line."""
    return _on_a_line(np.zeros(_bytes(shape, dtype) + LINE, np.uint8), shape, dtype)


def _bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _on_a_line(memory: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    start = -memory.ctypes.data % LINE
    return memory[start : start + _bytes(shape, dtype)].view(dtype).reshape(shape)


def skewed(shape: tuple[int, int], dtype: DTypeLike) -> Array:
    """An uninitialised matrix with one cache line of padding after each row.

    Without it, the elements of a column may all map to the same cache set if the length of a row is a power
    of two, and a transpose takes six times as long.
    """
    rows, columns = shape
    return empty((rows, columns + whole_lines(1, dtype)), dtype)[:, :columns]


def whole_lines(count: int, dtype: DTypeLike) -> int:
    """`count` elements, rounded up to whole cache lines."""
    in_a_line = LINE // np.dtype(dtype).itemsize
    return -(-count // in_a_line) * in_a_line
