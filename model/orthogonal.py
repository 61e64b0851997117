"""Makes square matrices nearly orthogonal: the Newton-Schulz iteration of Muon (Jordan et al., 2024).

With the singular value decomposition M = R diag(s) Q^T, an iteration replaces every s by a s + b s^3 + c s^5:

    Y = M / |M|;   then, again and again,  Y <- (a I + b A + c A A) Y  with  A = Y Y^T

All but the smallest singular values soon lie between 0.7 and 1.2, so that Y is about R Q^T, the orthogonal
matrix nearest to M. The square can be completed, a I + b A + c A A = c (A + b/2c I)^2 + (a - b^2/4c) I, and
c be taken into Y: an iteration is then three products, two of them symmetric, and two changes of a diagonal.
"""

from __future__ import annotations

import math

import numpy as np

from model import buffers
from model.cells import CELLS, Array
from model.config import RunConfig
from model.network import NetworkConfig

QUINTIC = a, b, c = 3.4445, -4.7750, 2.0315  # of Jordan et al.
SMALLEST = 1e-7  # added to the norm, so that zeros stay zeros


class NewtonSchulz:
    """The iterations, for matrices (N, N). Allocates no array after its construction."""

    def __init__(self, size: int, iterations: int, dtype: np.dtype) -> None:
        first, second, third, fourth = (buffers.empty((size, size), dtype) for _ in range(4))
        turns = ((first, first.T, second), (second, second.T, first))  # Y, its transpose, the next Y
        self._turns = [turns[turn % 2] for turn in range(iterations)]
        self._first, self._last = first, turns[iterations % 2][0]
        self._squares = (third, third.T, fourth)
        self._diagonals = (np.einsum("ii->i", third), np.einsum("ii->i", fourth))

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


class Blocks:
    """Each gate's block (H, H) of each layer's W in the gradients of all members, (M, P).

    Of all blocks, these are the ones that process `index` of `count` works on: as equal parts as can be.
    """

    def __init__(
        self, network: NetworkConfig, config: RunConfig, gradients: Array, index: int = 0, count: int = 1
    ) -> None:
        blocks = _gate_blocks(network, gradients)
        self._blocks = blocks[len(blocks) * index // count : len(blocks) * (index + 1) // count]
        size = config.hidden if config.optimizer == "muon" else 0  # no other optimiser needs the memory
        self._newton_schulz = NewtonSchulz(size, config.muon_iterations, gradients.dtype)

    def orthogonalise(self) -> None:
        """Replaces each block by a nearly orthogonal matrix."""
        for block in self._blocks:
            self._newton_schulz(block)


def _gate_blocks(network: NetworkConfig, gradients: Array) -> list[Array]:
    gates, hidden, flat = CELLS[network.cell].gates, network.hidden, gradients.reshape(-1)
    places = recurrent_places(network, len(gradients))
    matrices = [flat[place].reshape(hidden, gates, hidden) for place in places]
    return [matrix[:, gate] for matrix in matrices for gate in range(gates)]


def recurrent_places(network: NetworkConfig, members: int) -> list[slice]:
    """Where each W lies in an array of all members' parameters, (M*P,), in ascending order."""
    places, start = [], 0
    for name, shape in [*network.shapes().items()] * members:
        end = start + math.prod(shape)
        if name.endswith(".W"):
            places.append(slice(start, end))
        start = end
    return places
