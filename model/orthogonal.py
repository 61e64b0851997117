"""Makes matrices nearly orthogonal: the Newton-Schulz iteration of Muon (Jordan et al., 2024).

With the singular value decomposition M = R diag(s) Q^T, an iteration replaces every s by a s + b s^3 + c s^5:

    Y = M / |M|;   then, again and again,  Y <- (a I + b A + c A A) Y  with  A = Y Y^T

All but the smallest singular values soon lie between 0.7 and 1.2, so that Y is about R Q^T, the orthogonal
matrix nearest to M. The square can be completed, a I + b A + c A A = c (A + b/2c I)^2 + (a - b^2/4c) I, and
c be taken into Y: an iteration is then three products, two of them symmetric, and two changes of a diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model import buffers
from model.cells import CELLS, Array
from model.config import RunConfig
from model.network import NetworkConfig

QUINTIC = a, b, c = 3.4445, -4.7750, 2.0315  # of Jordan et al.
SMALLEST = 1e-7  # added to the norm, so that zeros stay zeros


class NewtonSchulz:
    """The iterations, for matrices (N, M), best with N <= M. Allocates no array after its construction."""

    def __init__(self, shape: tuple[int, int], iterations: int, dtype: np.dtype) -> None:
        first, second = (buffers.empty(shape, dtype) for _ in range(2))
        square, polynomial = (buffers.empty((shape[0], shape[0]), dtype) for _ in range(2))
        turns = ((first, first.T, second), (second, second.T, first))  # Y, its transpose, the next Y
        self._turns = [turns[turn % 2] for turn in range(iterations)]
        self._first, self._last = first, turns[iterations % 2][0]
        self._squares = (square, square.T, polynomial)
        self._diagonals = (np.einsum("ii->i", square), np.einsum("ii->i", polynomial))

    def __call__(self, matrix: Array) -> None:
        """Replaces `matrix`, whose rows may lie apart, by the nearly orthogonal one."""
        (square, square_transposed, polynomial), (diagonal, constant) = self._squares, self._diagonals
        np.copyto(self._first, matrix)
        flat = self._first.reshape(-1)
        norm = math.sqrt(float(np.dot(flat, flat)))
        np.multiply(self._first, c**0.25 / (norm + SMALLEST), out=self._first)  # c^(1/4) Y
        for y, y_transposed, result in self._turns:
            np.dot(y, y_transposed, square)  # c^(1/2) A
            np.add(diagonal, b / (2 * math.sqrt(c)), out=diagonal)  # c^(1/2) (A + b/2c I)
            np.dot(square, square_transposed, polynomial)  # c (A + b/2c I)^2
            np.add(constant, a - b * b / (4 * c), out=constant)  # a I + b A + c A A
            np.dot(polynomial, y, result)  # c^(1/4) (a I + b A + c A A) Y
        np.multiply(self._last, c**-0.25, out=self._last)
        np.copyto(matrix, self._last)


@dataclass(frozen=True)
class Matrix:
    """A matrix of weights (rows, gates * columns), at `place` in the parameters of all members, (M*P,)."""

    place: slice
    rows: int
    gates: int
    columns: int

    def blocks(self, flat: Array) -> list[Array]:
        """Views of each gate's block, transposed if that makes fewer rows than columns of it."""
        gates = flat[self.place].reshape(self.rows, self.gates, self.columns).swapaxes(0, 1)
        return [block if self.rows <= self.columns else block.T for block in gates]


def dense_matrices(network: NetworkConfig, members: int) -> list[Matrix]:
    """Each W, and each U whose input is not one-hot, in the order in which they lie in the parameters."""
    gates, hidden = CELLS[network.cell].gates, network.hidden
    one_hot = () if network.embedding else ("layer0.U",)
    matrices, start = [], 0
    for name, shape in [*network.shapes().items()] * members:
        end = start + math.prod(shape)
        if name.endswith((".U", ".W")) and name not in one_hot:
            matrices.append(Matrix(slice(start, end), shape[0], gates, hidden))
        start = end
    return matrices


class Blocks:
    """Each gate's block of the dense matrices, in the gradients of all members, (M, P).

    Of all blocks, these are the ones that process `first` of so many works on: about equal parts of the work.
    """

    def __init__(
        self, network: NetworkConfig, config: RunConfig, gradients: Array, first: int = 0, processes: int = 1
    ) -> None:
        flat, matrices = gradients.reshape(-1), dense_matrices(network, len(gradients))
        blocks = [block for matrix in matrices for block in matrix.blocks(flat)]
        blocks = sorted(blocks, key=lambda block: block.size, reverse=True)[first::processes]
        self._blocks: Sequence[Array] = blocks if config.optimizer == "muon" else ()
        self._by_shape = {
            block.shape: NewtonSchulz(block.shape, config.muon_iterations, block.dtype)
            for block in self._blocks
        }

    def orthogonalise(self) -> None:
        """Replaces each block by a nearly orthogonal matrix."""
        for block in self._blocks:
            self._by_shape[block.shape](block)
