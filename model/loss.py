"""Cross-entropy in nats per character, and its gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.cells import Array


def log_softmax(logits: Array) -> Array:
    """log p over the last axis: o - max o - log sum exp(o - max o), same shape. Works for complex logits."""
    shifted: Array = logits - logits.real.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def character_losses(logits: Array, targets: NDArray[np.integer]) -> Array:
    """-log p(target) of each character: logits (T, B, K), targets (T, B) -> (T, B)."""
    chosen: Array = np.take_along_axis(log_softmax(logits), targets[..., None], axis=-1)
    return -chosen[..., 0]


def cross_entropy(logits: Array, targets: NDArray[np.integer], reduction: str) -> tuple[float, Array]:
    """The mean loss in nats per character, and the loss's gradient with respect to the logits.

    Args:
        logits: (T, B, K); overwritten with the gradient, p - onehot(target).
        targets: ids (T, B).
        reduction: "mean" for the gradient of the mean over all characters, "sum" for that of their sum, as in
            the assignment. The returned loss is the mean in both cases.
    """
    rows, flat = logits.reshape(-1, logits.shape[-1]), logits.reshape(-1)
    count, characters = rows.shape
    chosen = np.arange(0, flat.size, characters) + targets.ravel()
    rows -= np.maximum.reduce(rows, axis=1, keepdims=True)
    target_logits = flat.take(chosen)
    np.exp(rows, out=rows)
    total = rows.dot(np.ones(characters, rows.dtype))  # faster than rows.sum(axis=1)
    losses = np.log(total) - target_logits
    loss = float(np.add.reduce(losses, dtype=np.float64)) / count
    rows /= total[:, None]
    flat[chosen] -= 1
    if reduction == "mean":
        rows /= count
    return loss, logits
