"""Repeated products of a few rows with the same matrix: what makes the loop over time fast on a CPU.

A BLAS copies (packs) a large matrix before it multiplies, which takes longer than a product of a few rows.
Here each product is computed in blocks small enough that the BLAS skips the copy. The matrix is copied into
these blocks once: per update in training, per network in a decoder. A single row is a vector, not a matrix of
one row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from model import buffers
from model.cells import Array

UNPACKED = 1_000_000  # multiplications up to which OpenBLAS does not pack
BLOCK_WIDTHS = (64, 32)  # columns of a block: the width of OpenBLAS's kernels, and half of it
PIECES = (1, 2, 4)  # numbers of partial sums
COLUMNS = 16  # the BLAS kernels compute whole blocks of this many columns alike for any number of rows


class BlockedProduct:
    """out = x M for many x (B, N) and one M (N, G*W), in blocks of M's columns, gate by gate.

    If blocks of columns are not small enough, the sum over N is also split into partial sums, which the
    caller has to add up.

    Args:
        rows: B.
        inner: N.
        gates: G.
        width: W.
        dtype: of all arrays.
        max_pieces: maximum number of partial sums.
        upright: False if M is a transposed view, which is then copied through a padded array.

    Attributes:
        out: (pieces, G, B, W), to be summed over the pieces. For one row (pieces, G, W); M is not copied
            then.
    """

    def __init__(
        self,
        rows: int,
        inner: int,
        gates: int,
        width: int,
        dtype: DTypeLike,
        max_pieces: int = 1,
        upright: bool = True,
    ) -> None:
        pieces, block = _block_sizes(rows, inner, width, max_pieces) if rows > 1 else (1, width)
        out = buffers.empty((pieces, gates, rows, width), dtype)
        self.out = out if rows > 1 else out[:, :, 0]
        self._target = out.reshape(pieces, gates, rows, -1, block).swapaxes(2, 3)
        shape = (pieces, gates, width // block, inner // pieces, block)
        self._blocks = buffers.empty(shape if rows > 1 else (0,), dtype)
        self._skewed = None if upright or rows == 1 else buffers.skewed((gates * width, inner), dtype)

    def operands(
        self, matrix: Array, scales: Array | None = None
    ) -> tuple[Callable[[Array, Array, Array], object], Array, Array]:
        """(multiply, M, target), valid until the next call: multiply(operand(x), M, target) writes `out`.

        If `scales` (G,) is given, each gate's columns of M are multiplied by the gate's scale.
        """
        if self.out.ndim == 3:  # one row: x is a vector
            if scales is not None:
                matrix = matrix * np.repeat(scales, matrix.shape[1] // len(scales))
            return np.ndarray.dot, matrix, self.out.reshape(-1)
        if self._skewed is not None:
            np.copyto(self._skewed, matrix.T)
            matrix = self._skewed.T
        pieces, gates, count, inner, block = self._blocks.shape
        source = matrix.reshape(pieces, inner, gates, count, block).transpose(0, 2, 3, 1, 4)
        if scales is None:
            np.copyto(self._blocks, source)
        else:
            np.multiply(source, scales[:, None, None, None], out=self._blocks)
        return np.matmul, self._blocks, self._target

    def operand(self, x: Array) -> Array:
        """The view of x, (B, N) or (N,), that `multiply` takes."""
        if x.ndim == 1:
            return x
        return x.reshape(len(x), len(self.out), -1).swapaxes(0, 1)[:, None, None]


def _block_sizes(rows: int, inner: int, width: int, max_pieces: int) -> tuple[int, int]:
    """(partial sums, columns of a block): the widest block that the BLAS does not pack, the fewest sums."""
    for block in BLOCK_WIDTHS:
        for pieces in PIECES:
            fits = rows * (inner // pieces) * block <= UNPACKED
            if fits and pieces <= max_pieces and width % block == inner % pieces == 0:
                return pieces, block
    return 1, width


def column_blocks(matrix: Array, max_rows: int) -> Array:
    """A matrix (N, K) as (blocks, N, columns), zero-padded, for products of up to `max_rows` rows.

    It is one block if the BLAS does not pack the whole matrix for half of the rows. Otherwise the columns are
    in several contiguous blocks: with a GRU of 256 units, 8 rows then take 17 microseconds instead of 46, and
    64 rows 112 instead of 146.
    """
    inner, columns = matrix.shape
    width = -(-columns // COLUMNS) * COLUMNS
    if max_rows // 2 * inner * width > UNPACKED:
        width = BLOCK_WIDTHS[0]
    padded = np.zeros((inner, -(-columns // width) * width), matrix.dtype)
    padded[:, :columns] = matrix
    return np.ascontiguousarray(padded.reshape(inner, -1, width).swapaxes(0, 1))


def row_blocks(rows: int, blocks: Array) -> int:
    """The number of blocks of rows, a power of two, for a product with a matrix from `column_blocks`."""
    _, inner, width = blocks.shape
    count = 1
    while -(-rows // count) * inner * width > UNPACKED and rows >= 4 * count:  # at least two rows in each
        count *= 2
    return count


def product(x: Array, blocks: Array, out: Array, count: int) -> Callable[[], object]:
    """A function that writes x M into `out`: x (B, N) in `count` blocks of rows, M from `column_blocks`."""
    if count == len(blocks) == 1:
        return partial(x.dot, blocks[0], out)
    x_blocks = x.reshape(count, 1, -1, x.shape[1])
    out_blocks = out.reshape(count, x_blocks.shape[2], len(blocks), -1).swapaxes(1, 2)
    return partial(np.matmul, x_blocks, blocks, out_blocks)
