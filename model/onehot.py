"""Products with one-hot rows, of which none is formed that can be gathered or added up instead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.cells import Array

FORMED = 2_000_000  # multiplications up to which a product is quicker than a sum for each character


def one_hot_gradient(ids: NDArray[np.integer], gradient: Array, out: Array) -> None:
    """dU = x^T du for one-hot rows x: row k of `out` (K, N) becomes the sum of the rows where the id is k.

    `ids` (T, B), `gradient` (T*B, N). For many characters it takes no more than for few, but that their rows
    are set to 0, so a text may have thousands of them.
    """
    ids = ids.ravel()
    if out.size * ids.size <= FORMED:
        product(ids, gradient, out)
    else:
        sums(ids, gradient, out)


def product(ids: NDArray[np.integer], gradient: Array, out: Array) -> None:
    """The same as a product of matrices."""
    rows = np.zeros((ids.size, len(out)), gradient.dtype)
    rows.reshape(-1)[np.arange(0, rows.size, len(out)) + ids] = 1
    rows.T.dot(gradient, out)


def sums(ids: NDArray[np.integer], gradient: Array, out: Array) -> None:
    """The same as a sum for each character that occurs."""
    order = np.argsort(ids, kind="stable")
    counts = np.bincount(ids, minlength=len(out))
    out[...] = 0
    start = 0
    for character in counts.nonzero()[0].tolist():
        end = start + int(counts[character])
        np.add.reduce(gradient.take(order[start:end], 0), 0, None, out[character])
        start = end
