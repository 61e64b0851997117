"""Proof of the backward pass: every parameter's analytic gradient against a numerical one.

Two methods, one function for every cell and every parameter, the initial state included:

- "centred", the assignment's own: (f(p + h) - f(p - h)) / 2h, an element at a time, in float64;
- "complex-step": Im f(p + ih) / h (Squire and Trapp, 1998), which subtracts nothing, so h can be 1e-30.

Both are compared over whole tensors, ||ga - gn|| / (||ga|| + ||gn||) in Frobenius norms, without clipping.
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

# Relative errors in the report of the assignment that this project starts from; U, W and b are layer0's.
ASSIGNMENT_FIGURES = {
    "layer0.W": 2.54e-07,
    "V": 1.77e-08,
    "layer0.U": 2.55e-09,
    "layer0.b": 2.18e-09,
    "c": 1.55e-10,
}
ASSIGNMENT_MARGIN = 10  # how many times closer than those figures a check has to be


# What fresh networks are checked on. It depends on nobody's text, so that a check can be repeated anywhere.
OWN_VOCABULARY = Vocabulary("\n !&'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz")
OWN_IDS = OWN_VOCABULARY.encode("To be, or not to be, that is the question:")


@dataclass(frozen=True)
class GradientProblem:
    """What a check is made on: a float64 network, ids and targets (T, B), and a state (L, S, B, H).

    `assignment` says that it is the assignment's own, whose figures then are the measure.
    """

    network: Network
    inputs: NDArray[np.integer]
    targets: NDArray[np.integer]
    state: Array
    assignment: bool = False


@dataclass(frozen=True)
class ParameterCheck:
    """One parameter's result.

    Attributes:
        relative_error: ||ga - gn|| / (||ga|| + ||gn||), 0 where both are 0.
        checked: elements compared, all of them unless a limit was asked for.
        limit: what `relative_error` has to stay below.
        assignment_figure: the assignment's own relative error, where the problem is the assignment's.
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
    """A freshly initialised network of `config` and the first window of the text, from the zero state."""
    rng = np.random.default_rng(config.seed)
    network = Network.initialise(member_config(config, len(vocabulary)), config, rng, np.float64)
    return problem_for(network, ids, config.sequence_length, 1)


def assignment_problem(vocabulary: Vocabulary, ids: NDArray[np.integer]) -> GradientProblem:
    """The assignment's: Elman, hidden 100, T = 25, one stream, N(0, 0.01^2), the text's first characters."""
    return dataclasses.replace(make_problem(PRESETS["classic"], vocabulary, ids), assignment=True)


def problem_for(network: Network, ids: NDArray[np.integer], steps: int, rows: int) -> GradientProblem:
    """`network` as it is, on the first B windows of T characters. Raises TextError if it is too short."""
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
    """Checks every parameter and the initial state, yielding each result as it is known.

    `step` is h. `elements` bounds how many elements of a tensor are compared, spread evenly over it.
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
    """The backward pass's gradients of the summed loss: parameters (P,), initial state (L, S, B, H)."""
    logits, tape = problem.network.forward(problem.inputs, problem.state)
    _, dlogits = cross_entropy(logits, problem.targets, "sum")
    return problem.network.backward(dlogits, tape).flat, tape.initial_state_gradient


def excess_losses(network: Network, problem: GradientProblem, state: Array, tape: Tape) -> Array:
    """Each character's loss less ln K: log mean_k exp(o_k - o_target), shape (T, B).

    Mathematically the cross-entropy but for a constant, which no gradient sees. Near a uniform prediction,
    where training starts, the loss itself is all but that constant, and a difference of two of them keeps few
    of its digits; by expm1 and log1p the small part is computed alone, with all of them.
    """
    logits, _ = network.forward(problem.inputs, state, tape)
    differences = logits - np.take_along_axis(logits, problem.targets[..., None], axis=-1)
    excess: Array = np.log1p(np.expm1(differences).mean(axis=-1))
    return excess


def _numeric(
    problem: GradientProblem, which: str, chosen: NDArray[np.integer], method: str, h: float
) -> Array:
    """The numerical gradient with respect to some elements of the parameters or of the initial state."""
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
            # subtracting character by character rounds less than subtracting sums
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
    """At most `elements` of the indices, evenly spaced from first to last."""
    if elements is None or elements >= len(indices):
        return indices
    return indices[np.linspace(0, len(indices) - 1, elements).astype(np.intp)]
