"""The gradient of a matrix that is multiplied by one-hot rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.cells import Array

FORMED = 2_000_000  # multiplications up to which a matrix product is faster than a sum per character


def one_hot_gradient(ids: NDArray[np.integer], gradient: Array, out: Array) -> None:
    """Writes dU = x^T du for one-hot rows x: row k of `out` is the sum of the rows of du whose id is k.

    Args:
        ids: (T, B).
        gradient: du, (T*B, N).
        out: (K, N). For a large K the time is proportional to T*B, apart from setting `out` to 0.
    """
    ids = ids.ravel()
    if out.size * ids.size <= FORMED:
        product(ids, gradient, out)
    else:
        sums(ids, gradient, out)


def product(ids: NDArray[np.integer], gradient: Array, out: Array) -> None:
    """`one_hot_gradient` as a matrix product."""
    rows = np.zeros((ids.size, len(out)), gradient.dtype)
    rows.reshape(-1)[np.arange(0, rows.size, len(out)) + ids] = 1
    rows.T.dot(gradient, out)


def sums(ids: NDArray[np.integer], gradient: Array, out: Array) -> None:
    """`one_hot_gradient` as a sum for each character that occurs."""
    order = np.argsort(ids, kind="stable")
    counts = np.bincount(ids, minlength=len(out))
    out[...] = 0
    start = 0
    for character in counts.nonzero()[0].tolist():
        end = start + int(counts[character])
        np.add.reduce(gradient.take(order[start:end], 0), 0, None, out[character])
        start = end
