"""Gradient check: compares the backward pass with numerical gradients.

It covers every parameter and the initial state. There are two methods, for any cell:

- "centred", the assignment's: (f(p + h) - f(p - h)) / 2h for each element, in float64;
- "complex-step": Im f(p + ih) / h (Squire and Trapp, 1998), which has no cancellation, so h can be 1e-30.

The relative error of a tensor is ||ga - gn|| / (||ga|| + ||gn||) in Frobenius norms, without clipping.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.cells import Array
from model.config import PRESETS, RunConfig
from model.ensemble import member_config
from model.errors import ConfigError, TextError
from model.loss import cross_entropy
from model.network import Network, Tape, named_views
from model.vocabulary import Vocabulary

METHODS = ("centred", "complex-step")
STEPS = {"centred": 1e-5, "complex-step": 1e-30}
LIMITS = {"centred": 1e-6, "complex-step": 1e-12}
INITIAL_STATE = "initial state"

# relative errors reported in the assignment
ASSIGNMENT_FIGURES = {
    "layer0.W": 2.54e-07,
    "V": 1.77e-08,
    "layer0.U": 2.55e-09,
    "layer0.b": 2.18e-09,
    "c": 1.55e-10,
}
ASSIGNMENT_MARGIN = 10  # a check must be this many times more accurate than those figures


# the text of a check of a new network: fixed, so that the check can be repeated anywhere
OWN_VOCABULARY = Vocabulary("\n !&'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz")
OWN_IDS = OWN_VOCABULARY.encode("To be, or not to be, that is the question:")


@dataclass(frozen=True)
class GradientProblem:
    """The input of a gradient check: a float64 network, inputs and targets (T, B), and a state (L, S, B, H).

    `assignment` is whether it is the assignment's problem, which is compared with the assignment's figures.
    """

    network: Network
    inputs: NDArray[np.integer]
    targets: NDArray[np.integer]
    state: Array
    assignment: bool = False


@dataclass(frozen=True)
class ParameterCheck:
    """The result for one parameter.

    Attributes:
        relative_error: ||ga - gn|| / (||ga|| + ||gn||), or 0 if both are 0.
        checked: number of elements compared.
        limit: the check passes if `relative_error` is below this.
        assignment_figure: the relative error reported in the assignment, for the assignment's problem.
    """

    name: str
    shape: tuple[int, ...]
    relative_error: float
    checked: int
    limit: float
    assignment_figure: float | None

    @property
    def passed(self) -> bool:
        return self.relative_error < self.limit


def make_problem(config: RunConfig, vocabulary: Vocabulary, ids: NDArray[np.integer]) -> GradientProblem:
    """A new network of `config` on the first window of the text, from the zero state."""
    rng = np.random.default_rng(config.seed)
    network = Network.initialise(member_config(config, len(vocabulary)), config, rng, np.float64)
    return problem_for(network, ids, config.sequence_length, 1)


def assignment_problem(vocabulary: Vocabulary, ids: NDArray[np.integer]) -> GradientProblem:
    """The assignment's problem: Elman, H = 100, T = 25, B = 1, weights N(0, 0.01^2), start of the text."""
    return dataclasses.replace(make_problem(PRESETS["classic"], vocabulary, ids), assignment=True)


def problem_for(network: Network, ids: NDArray[np.integer], steps: int, rows: int) -> GradientProblem:
    """`network` on the first `rows` windows of `steps` characters. Raises TextError if there are fewer."""
    if len(ids) < steps * rows + 1:
        raise TextError(f"a gradient check needs {steps * rows + 1} characters of text. Given: {len(ids)}")
    inputs = ids[: steps * rows].reshape(rows, steps).T
    targets = ids[1 : steps * rows + 1].reshape(rows, steps).T
    return GradientProblem(
        network.astype(np.float64), inputs, targets, network.zero_state(rows).astype(np.float64)
    )


def check(
    problem: GradientProblem,
    method: str = "complex-step",
    step: float | None = None,
    elements: int | None = None,
) -> Iterator[ParameterCheck]:
    """Checks every parameter and the initial state; yields each result when it is known.

    Args:
        problem: the network and its input.
        method: one of METHODS.
        step: h; by default that of STEPS.
        elements: maximum number of elements of a tensor to compare, evenly spaced; None for all.

    Raises ConfigError for an unknown method.
    """
    if method not in METHODS:
        raise ConfigError("method", f"must be one of {', '.join(METHODS)}. Given: {method!r}")
    step = STEPS[method] if step is None else step
    parameters, state = analytic_gradients(problem)
    flat_index = named_views(problem.network.config, np.arange(problem.network.flat.size))
    figures = ASSIGNMENT_FIGURES if problem.assignment else {}
    for name, indices in flat_index.items():
        chosen = _spread(indices.ravel(), elements)
        gn = _numeric(problem, "parameters", chosen, method, step)
        yield _compare(name, indices.shape, parameters[chosen], gn, method, figures.get(name))
    chosen = _spread(np.arange(state.size), elements)
    gn = _numeric(problem, "state", chosen, method, step)
    yield _compare(INITIAL_STATE, state.shape, state.ravel()[chosen], gn, method, None)


def analytic_gradients(problem: GradientProblem) -> tuple[Array, Array]:
    """The backward pass's gradients of the summed loss: parameters (P,) and initial state (L, S, B, H)."""
    logits, tape = problem.network.forward(problem.inputs, problem.state)
    _, dlogits = cross_entropy(logits, problem.targets, "sum")
    return problem.network.backward(dlogits, tape).flat, tape.initial_state_gradient


def excess_losses(network: Network, problem: GradientProblem, state: Array, tape: Tape) -> Array:
    """Each character's loss minus ln K, (T, B): log mean_k exp(o_k - o_target).

    The constant ln K does not affect gradients. But near a uniform prediction, where training starts, the
    loss is almost equal to it, and a difference of two losses would lose most of its digits. expm1 and log1p
    compute the small remainder to full precision.
    """
    logits, _ = network.forward(problem.inputs, state, tape)
    differences = logits - np.take_along_axis(logits, problem.targets[..., None], axis=-1)
    excess: Array = np.log1p(np.expm1(differences).mean(axis=-1))
    return excess


def _numeric(
    problem: GradientProblem, which: str, chosen: NDArray[np.integer], method: str, h: float
) -> Array:
    """The numerical gradient of the `chosen` elements of "parameters" or "state"."""
    dtype = np.complex128 if method == "complex-step" else np.float64
    network, state = problem.network.astype(dtype), problem.state.astype(dtype)
    tape = network.tape(*problem.inputs.shape)
    values = (network.flat if which == "parameters" else state).reshape(-1)
    gradient = np.empty(len(chosen), np.float64)
    for k, i in enumerate(chosen):
        original = values[i]
        if method == "complex-step":
            values[i] = original + 1j * h
            gradient[k] = excess_losses(network, problem, state, tape).imag.sum() / h
        else:
            values[i] = original + h
            above = excess_losses(network, problem, state, tape)
            values[i] = original - h
            # the difference of each character's losses has a smaller rounding error than that of their sums
            gradient[k] = (above - excess_losses(network, problem, state, tape)).sum() / (2 * h)
        values[i] = original
    return gradient


def _compare(
    name: str, shape: tuple[int, ...], ga: Array, gn: Array, method: str, figure: float | None
) -> ParameterCheck:
    scale = float(np.linalg.norm(ga) + np.linalg.norm(gn))
    error = float(np.linalg.norm(ga - gn)) / scale if scale else 0.0
    limit = LIMITS[method]
    if figure is not None and method == "centred":
        limit = figure / ASSIGNMENT_MARGIN
    return ParameterCheck(name, shape, error, len(ga), limit, figure)


def _spread(indices: NDArray[np.integer], elements: int | None) -> NDArray[np.integer]:
    """At most `elements` of the indices, evenly spaced from the first to the last."""
    if elements is None or elements >= len(indices):
        return indices
    return indices[np.linspace(0, len(indices) - 1, elements).astype(np.intp)]
