"""AdaGrad, Adam and AdamW, gradient clipping, and learning-rate schedules, all on flat arrays.

Each optimiser updates every parameter in a handful of whole-array operations, in place, some thousands of
parameters at a time.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from model import buffers
from model.cells import Array
from model.config import RunConfig

EPSILON = 1e-8
SPAN = 2**15  # parameters that are updated at a time, so that all their arrays are in the processor's cache


class Optimizer(Protocol):
    """Updates parameters (P,) in place from their gradient (P,)."""

    def update(self, parameters: Array, gradient: Array, rate: float) -> None:
        """One update at learning rate `rate`; `gradient` may be used up."""
        ...

    def tensors(self) -> dict[str, Array]:
        """What must be kept for an exact resume, by name."""
        ...


class AdaGrad:
    """Duchi et al. (2011): m += g^2;  parameters -= rate g / sqrt(m + epsilon)."""

    def __init__(self, size: int, dtype: np.dtype) -> None:
        self.m = buffers.zeros((size,), dtype)
        self._scratch = buffers.empty((min(size, SPAN),), dtype)

    def update(self, parameters: Array, gradient: Array, rate: float) -> None:
        for span in _spans(len(parameters)):
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

    `decay` is an array (P,): weight matrices decay, biases do not.
    """

    def __init__(
        self, size: int, dtype: np.dtype, beta1: float, beta2: float, decay: Array | None = None
    ) -> None:
        self.beta1, self.beta2, self.decay = beta1, beta2, decay
        self.m = buffers.zeros((size,), dtype)
        self.v = buffers.zeros((size,), dtype)
        self.updates = np.zeros(1, np.int64)
        self._scratch = buffers.empty((min(size, SPAN),), dtype)

    def update(self, parameters: Array, gradient: Array, rate: float) -> None:
        self.updates += 1
        for span in _spans(len(parameters)):
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


def _spans(size: int) -> list[slice]:
    return [slice(start, start + SPAN) for start in range(0, size, SPAN)]


def make_optimizer(config: RunConfig, decayed: Array) -> Optimizer:
    """The optimiser that `config` names. `decayed` (P,) is 1 where weight decay applies and 0 elsewhere."""
    if config.optimizer == "adagrad":
        return AdaGrad(decayed.size, decayed.dtype)
    decay = decayed * decayed.dtype.type(config.weight_decay) if config.optimizer == "adamw" else None
    return Adam(decayed.size, decayed.dtype, config.beta1, config.beta2, decay)


def clip(gradient: Array, how: str, limit: float) -> None:
    """Clips in place: "value", each element to [-limit, limit]; "norm", the whole to a Euclidean norm."""
    if how == "value":
        gradient.clip(-limit, limit, gradient)
    elif how == "norm":
        norm = math.sqrt(float(np.dot(gradient, gradient)))
        if norm > limit:
            np.multiply(gradient, limit / norm, out=gradient)


def learning_rate(config: RunConfig, progress: float) -> float:
    """The rate at `progress` (0 to 1) through the run, counted in steps or in time as the run's end is.

    "cosine": linear warm-up over the fraction `warmup`, then half a cosine down to `final_learning_rate`
    times the peak (Loshchilov and Hutter, 2017, without restarts).
    """
    if config.schedule == "constant":
        return config.learning_rate
    if progress < config.warmup:
        # never 0: the first update should not be lost
        return config.learning_rate * max(progress / config.warmup, 0.01)
    remaining = (min(progress, 1.0) - config.warmup) / max(1.0 - config.warmup, 1e-12)
    share = config.final_learning_rate + (1 - config.final_learning_rate) * 0.5 * (
        1 + math.cos(math.pi * remaining)
    )
    return config.learning_rate * share
