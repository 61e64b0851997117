"""AdaGrad, Adam, AdamW and Muon, gradient clipping, and learning-rate schedules, on flat arrays.

Each optimizer updates the parameters in place, in a few array operations on some thousands of them at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from model import buffers
from model.cells import Array
from model.config import RunConfig
from model.orthogonal import Matrix

EPSILON = 1e-8
SPAN = 2**15  # parameters updated at a time, so that all arrays of the update fit in the CPU's cache


Orthogonalise = Callable[[], None]  # orthogonalises each gate's block of Muon's matrices in the gradient


class Optimizer(Protocol):
    """Updates parameters (P,) in place from their gradient (P,)."""

    def update(self, parameters: Array, gradient: Array, rate: float, orthogonalise: Orthogonalise) -> None:
        """Makes one update with learning rate `rate`. May overwrite `gradient`.

        `orthogonalise()` orthogonalises each gate's block of Muon's matrices in `gradient`, in place.
        """
        ...

    def tensors(self) -> dict[str, Array]:
        """The state that an exact resume needs, by name."""
        ...


class AdaGrad:
    """Duchi et al. (2011): m += g^2;  parameters -= rate g / sqrt(m + epsilon)."""

    def __init__(self, size: int, dtype: np.dtype) -> None:
        self.m = buffers.zeros((size,), dtype)
        self._scratch = buffers.empty((min(size, SPAN),), dtype)

    def update(self, parameters: Array, gradient: Array, rate: float, orthogonalise: Orthogonalise) -> None:
        for span in _spans(slice(len(parameters))):
            self._update(parameters[span], gradient[span], self.m[span], rate)

    def _update(self, parameters: Array, gradient: Array, m: Array, rate: float) -> None:
        scratch = self._scratch[: len(m)]
        np.multiply(gradient, gradient, out=scratch)
        np.add(m, scratch, out=m)
        np.add(m, EPSILON, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.divide(gradient, scratch, out=scratch)
        np.multiply(scratch, rate, out=scratch)
        np.subtract(parameters, scratch, out=parameters)

    def tensors(self) -> dict[str, Array]:
        return {"m": self.m}


class Adam:
    """Kingma and Ba (2015); with `decay`, AdamW's decoupled weight decay (Loshchilov and Hutter, 2019).

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
    parameters -= rate (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + decay parameters).

    Args:
        size: P.
        dtype: of all arrays.
        beta1, beta2: as above.
        decay: the weight decay of each parameter, (P,); None for Adam.
        ranges: the parameters to update; None for all.
    """

    def __init__(
        self,
        size: int,
        dtype: np.dtype,
        beta1: float,
        beta2: float,
        decay: Array | None = None,
        ranges: Sequence[slice] | None = None,
    ) -> None:
        self.beta1, self.beta2, self.decay = beta1, beta2, decay
        self.m = buffers.zeros((size,), dtype)
        self.v = buffers.zeros((size,), dtype)
        self.updates = np.zeros(1, np.int64)
        self._scratch = buffers.empty((min(size, SPAN),), dtype)
        self._spans = _spans(*(ranges or [slice(size)]))

    def update(self, parameters: Array, gradient: Array, rate: float, orthogonalise: Orthogonalise) -> None:
        self.updates += 1
        for span in self._spans:
            self._update(parameters[span], gradient[span], span, rate)

    def _update(self, parameters: Array, gradient: Array, span: slice, rate: float) -> None:
        m, v, t = self.m[span], self.v[span], int(self.updates[0])
        scratch = self._scratch[: len(m)]
        if self.decay is not None:
            np.multiply(self.decay[span], rate, out=scratch)
            np.multiply(scratch, parameters, out=scratch)
            np.subtract(parameters, scratch, out=parameters)
        np.multiply(gradient, 1 - self.beta1, out=scratch)
        np.multiply(m, self.beta1, out=m)
        np.add(m, scratch, out=m)
        np.multiply(gradient, gradient, out=gradient)
        np.multiply(gradient, 1 - self.beta2, out=gradient)
        np.multiply(v, self.beta2, out=v)
        np.add(v, gradient, out=v)
        np.sqrt(v, out=scratch)
        np.multiply(scratch, 1 / math.sqrt(1 - self.beta2**t), out=scratch)
        np.add(scratch, EPSILON, out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, rate / (1 - self.beta1**t), out=scratch)
        np.subtract(parameters, scratch, out=parameters)

    def tensors(self) -> dict[str, Array]:
        return {"m": self.m, "v": self.v, "updates": self.updates}


class Muon:
    """Muon (Jordan et al., 2024) for W and U, scaled as in Liu et al. (2025); AdamW for all other parameters.

    m = momentum m + g;  O = orthogonalised (g + momentum m), for each gate's block (N, M);
    parameters -= rate (scale sqrt(max(N, M)) O + decay parameters).

    The factor sqrt(max(N, M)) makes the root mean square of a step about `scale` times the rate for blocks of
    any shape.

    Args:
        config: the settings.
        decay: the weight decay of each parameter, (P,).
        matrices: the W and U to update with Muon, in the order of the parameters.
    """

    def __init__(self, config: RunConfig, decay: Array, matrices: Sequence[Matrix]) -> None:
        self.momentum = config.muon_momentum
        others = _others(matrices, decay.size)
        self._adam = Adam(decay.size, decay.dtype, config.beta1, config.beta2, decay, others)
        self._decay, self._m = decay, self._adam.m
        self._scratch = buffers.empty((min(decay.size, SPAN),), decay.dtype)
        self._spans = [
            (span, config.muon_scale * math.sqrt(max(matrix.rows, matrix.columns)))
            for matrix in matrices
            for span in _spans(matrix.place)
        ]

    def update(self, parameters: Array, gradient: Array, rate: float, orthogonalise: Orthogonalise) -> None:
        for span, _ in self._spans:
            self._direct(gradient[span], self._m[span])
        orthogonalise()
        for span, scale in self._spans:
            self._step(parameters[span], gradient[span], self._decay[span], rate, scale)
        self._adam.update(parameters, gradient, rate, orthogonalise)

    def _direct(self, gradient: Array, m: Array) -> None:
        """Replaces the gradient with the Nesterov direction g + momentum m."""
        scratch = self._scratch[: len(m)]
        np.multiply(m, self.momentum, out=m)
        np.add(m, gradient, out=m)  # m = momentum m + g
        np.multiply(m, self.momentum, out=scratch)
        np.add(gradient, scratch, out=gradient)

    def _step(self, parameters: Array, direction: Array, decay: Array, rate: float, scale: float) -> None:
        scratch = self._scratch[: len(decay)]
        np.multiply(decay, rate, out=scratch)
        np.multiply(scratch, parameters, out=scratch)
        np.subtract(parameters, scratch, out=parameters)  # parameters -= rate decay parameters
        np.multiply(direction, rate * scale, out=scratch)
        np.subtract(parameters, scratch, out=parameters)  # parameters -= rate scale sqrt(max(N, M)) O

    def tensors(self) -> dict[str, Array]:
        """AdamW's tensors; "m" also has the momentum of the matrices."""
        return self._adam.tensors()


def _others(matrices: Sequence[Matrix], size: int) -> list[slice]:
    """The ranges of the `size` parameters that are outside the matrices."""
    edges = [0, *(edge for matrix in matrices for edge in (matrix.place.start, matrix.place.stop))]
    return [slice(*ends) for ends in zip(edges[::2], [*edges[1::2], size], strict=True)]


def _spans(*ranges: slice) -> list[slice]:
    return [
        slice(start, min(start + SPAN, whole.stop))
        for whole in ranges
        for start in range(whole.start or 0, whole.stop, SPAN)
    ]


def make_optimizer(config: RunConfig, decayed: Array, matrices: Sequence[Matrix]) -> Optimizer:
    """The optimizer that `config` names.

    Args:
        config: the settings.
        decayed: 1 for parameters with weight decay, 0 for the others, (P,).
        matrices: the matrices that Muon updates.
    """
    if config.optimizer == "adagrad":
        return AdaGrad(decayed.size, decayed.dtype)
    decay = decayed * decayed.dtype.type(config.weight_decay)
    if config.optimizer == "muon":
        return Muon(config, decay, matrices)
    weights = decay if config.optimizer == "adamw" else None
    return Adam(decayed.size, decayed.dtype, config.beta1, config.beta2, weights)


def clip(gradient: Array, how: str, limit: float) -> None:
    """Clips in place: "value" clips each element to [-limit, limit], "norm" scales the Euclidean norm."""
    if how == "value":
        gradient.clip(-limit, limit, gradient)
    elif how == "norm":
        norm = math.sqrt(float(np.dot(gradient, gradient)))
        if norm > limit:
            np.multiply(gradient, limit / norm, out=gradient)


def learning_rate(config: RunConfig, progress: float) -> float:
    """The learning rate at `progress`, the fraction of the run that is done, 0 to 1.

    "cosine" is a linear warm-up over the fraction `warmup`, then half a cosine down to `final_learning_rate`
    times the peak (Loshchilov and Hutter, 2017, without restarts).
    """
    if config.schedule == "constant":
        return config.learning_rate
    if progress < config.warmup:
        # not 0, so that the first update has an effect
        return config.learning_rate * max(progress / config.warmup, 0.01)
    remaining = (min(progress, 1.0) - config.warmup) / max(1.0 - config.warmup, 1e-12)
    share = config.final_learning_rate + (1 - config.final_learning_rate) * 0.5 * (
        1 + math.cos(math.pi * remaining)
    )
    return config.learning_rate * share
