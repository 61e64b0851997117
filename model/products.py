"""Products of a few rows with one matrix, made again and again: what makes the loop over time fast on a CPU.

Each step's product is made in blocks so small that the BLAS does not copy the matrix first, and one row alone
is a vector, not a matrix of one row. Training copies its matrices once an update, a decoder's once for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from model import buffers
from model.cells import Array

UNPACKED = 1_000_000  # multiplications up to which OpenBLAS multiplies matrices where they lie
BLOCK_WIDTHS = (64, 32)  # columns of a block: its kernels' width, and half of it
PIECES = (1, 2, 4)  # into which a sum may be cut
COLUMNS = 16  # the BLAS kernels treat whole blocks of so many columns alike at every number of rows


class BlockedProduct:
    """out = x M for many x (B, N) and one M (N, G*W), in blocks of M's columns, gate by gate.

    At a few rows a product takes less time than the copy of M that a BLAS makes for each large one; OpenBLAS
    leaves it out for small ones. Two kinds of memory are bought with that: the blocks of M, copied once for
    many products, and `out`. Where blocks of columns alone are not small enough, the sum over N is cut into
    pieces too, if the caller can add them up. A transposed M, `upright` is False, is copied by a detour.

    Attributes:
        out: (pieces, G, B, W), to be added up over the pieces; (pieces, G, W) if there is one row, for which
            nothing is copied.
    """

    def __init__(
        self,
        rows: int,
        inner: int,
        gates: int,
        width: int,
        dtype: DTypeLike,
        most_pieces: int = 1,
        upright: bool = True,
    ) -> None:
        pieces, block = _block_sizes(rows, inner, width, most_pieces) if rows > 1 else (1, width)
        out = buffers.empty((pieces, gates, rows, width), dtype)
        self.out = out if rows > 1 else out[:, :, 0]
        self._target = out.reshape(pieces, gates, rows, -1, block).swapaxes(2, 3)
        shape = (pieces, gates, width // block, inner // pieces, block)
        self._blocks = buffers.empty(shape if rows > 1 else (0,), dtype)
        self._skewed = None if upright or rows == 1 else buffers.skewed((gates * width, inner), dtype)

    def operands(
        self, matrix: Array, scales: Array | None = None
    ) -> tuple[Callable[[Array, Array, Array], object], Array, Array]:
        """(multiply, M, target): multiply(operand(x), M, target) writes `out`. Valid until the next call.

        Each gate's columns of M are multiplied by its number of `scales`, (G,), if there are any.
        """
        if self.out.ndim == 3:  # a vector needs no copy, and has the least overhead
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
        """A view of x, (B, N) or (N,), to multiply."""
        if x.ndim == 1:
            return x
        return x.reshape(len(x), len(self.out), -1).swapaxes(0, 1)[:, None, None]


def _block_sizes(rows: int, inner: int, width: int, most_pieces: int) -> tuple[int, int]:
    """(pieces of the sum, columns of a block): the fewest pieces of the widest block that is not copied."""
    for block in BLOCK_WIDTHS:
        for pieces in PIECES:
            fits = rows * (inner // pieces) * block <= UNPACKED
            if fits and pieces <= most_pieces and width % block == inner % pieces == 0:
                return pieces, block
    return 1, width


def column_blocks(matrix: Array, most_rows: int) -> Array:
    """A matrix (N, K) as (blocks, N, columns), zero columns added, for products of up to `most_rows` rows.

    One block, where the BLAS does not copy the whole matrix even for half of the rows. Otherwise its columns
    in blocks that lie one after the other: 8 rows of a GRU of 256 units then take 17 microseconds instead of
    46, and 64 rows 112 instead of 146.
    """
    inner, columns = matrix.shape
    width = -(-columns // COLUMNS) * COLUMNS
    if most_rows // 2 * inner * width > UNPACKED:
        width = BLOCK_WIDTHS[0]
    padded = np.zeros((inner, -(-columns // width) * width), matrix.dtype)
    padded[:, :columns] = matrix
    return np.ascontiguousarray(padded.reshape(inner, -1, width).swapaxes(0, 1))


def row_blocks(rows: int, blocks: Array) -> int:
    """Into how many blocks of rows, a power of two, to cut a product with `column_blocks`."""
    _, inner, width = blocks.shape
    count = 1
    while -(-rows // count) * inner * width > UNPACKED and rows >= 4 * count:  # two rows at least
        count *= 2
    return count


def product(x: Array, blocks: Array, out: Array, count: int) -> Callable[[], object]:
    """multiply(): writes x M for x (B, N) into `out`, M as `column_blocks`, x in `count` blocks of rows."""
    if count == len(blocks) == 1:
        return partial(x.dot, blocks[0], out)
    x_blocks = x.reshape(count, 1, -1, x.shape[1])
    out_blocks = out.reshape(count, x_blocks.shape[2], len(blocks), -1).swapaxes(1, 2)
    return partial(np.matmul, x_blocks, blocks, out_blocks)
