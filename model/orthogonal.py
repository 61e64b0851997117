"""Orthogonalises matrices approximately: the Newton-Schulz iteration of Muon (Jordan et al., 2024).

    Y = M / |M|;   then repeatedly  Y <- (a I + b A + c A A) Y  with  A = Y Y^T

With the singular value decomposition M = R diag(s) Q^T, one iteration replaces each s by a s + b s^3 + c s^5.
All but the smallest singular values soon lie between 0.7 and 1.2, so that Y is close to R Q^T, the orthogonal
matrix nearest to M. Completing the square, a I + b A + c A A = c (A + b/2c I)^2 + (a - b^2/4c) I, and
absorbing c into Y leaves three products, two of them symmetric, and two updates of a diagonal for each
iteration.
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

QUINTIC = a, b, c = 3.4445, -4.7750, 2.0315  # from Jordan et al.
SMALLEST = 1e-7  # added to the norm, so that a zero matrix stays zero


class NewtonSchulz:
    """The iteration for matrices (N, M); fastest for N <= M. Allocates all its arrays in the constructor."""

    def __init__(self, shape: tuple[int, int], iterations: int, dtype: np.dtype) -> None:
        first, second = (buffers.empty(shape, dtype) for _ in range(2))
        square, polynomial = (buffers.empty((shape[0], shape[0]), dtype) for _ in range(2))
        turns = ((first, first.T, second), (second, second.T, first))  # Y, its transpose, the next Y
        self._turns = [turns[turn % 2] for turn in range(iterations)]
        self._first, self._last = first, turns[iterations % 2][0]
        self._squares = (square, square.T, polynomial)
        self._diagonals = (np.einsum("ii->i", square), np.einsum("ii->i", polynomial))

    def __call__(self, matrix: Array) -> None:
        """Orthogonalises `matrix` (N, M) in place; its rows need not be contiguous."""
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
    """A weight matrix (rows, gates * columns), at `place` in the parameters of all members, (M*P,)."""

    place: slice
    rows: int
    gates: int
    columns: int

    def blocks(self, flat: Array) -> list[Array]:
        """A view of each gate's block, transposed if it has more rows than columns."""
        gates = flat[self.place].reshape(self.rows, self.gates, self.columns).swapaxes(0, 1)
        return [block if self.rows <= self.columns else block.T for block in gates]


def dense_matrices(network: NetworkConfig, members: int) -> list[Matrix]:
    """Each W, and each U whose input is not one-hot, in the order of the parameters of all members."""
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
    """Each gate's block of the dense matrices, as views of the gradients of all members, (M, P).

    With several processes, process `first` of `processes` has about an equal share of the blocks. There are
    none unless the optimizer is Muon.
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
        """Orthogonalises each block approximately, in place."""
        for block in self._blocks:
            self._by_shape[block.shape](block)
