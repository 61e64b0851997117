"""The gradient check: correct gradients pass, and gradients with a planted fault are detected."""

from typing import Any

import numpy as np
import pytest

from model import recurrent
from model.cells import CELLS, Array, Arrays, Cell
from model.config import PRESETS, RunConfig
from model.errors import ConfigError, TextError
from model.gradcheck import (
    ASSIGNMENT_FIGURES,
    INITIAL_STATE,
    GradientProblem,
    analytic_gradients,
    assignment_problem,
    check,
    excess_losses,
    make_problem,
    problem_for,
)
from model.layer_tape import LayerTape
from model.loss import character_losses
from model.network import Network, NetworkConfig
from model.recurrent import LayerWeights
from model.vocabulary import Vocabulary

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom... " * 3
VOCABULARY = Vocabulary.from_text(TEXT)
IDS = VOCABULARY.encode(TEXT)


def make(
    cell: str, layers: int, steps: int = 7, rows: int = 3, scale: float = 0.6, embedding: int = 0
) -> GradientProblem:
    rng = np.random.default_rng(layers)
    config = NetworkConfig(6, 5, layers, cell, embedding)
    network = Network(config, rng.normal(0, scale, config.size()))
    inputs, targets = rng.integers(0, 6, (2, steps, rows))
    return GradientProblem(network, inputs, targets, rng.normal(0, 0.5, network.zero_state(rows).shape))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("layers", "embedding"), [(1, 0), (2, 0), (3, 0), (1, 4), (2, 9)])
def test_parameters_and_initial_state_pass_complex_step(cell, layers, embedding):
    problem = make(cell, layers, embedding=embedding)
    results = list(check(problem, "complex-step"))
    assert [result.name for result in results] == [*problem.network.parameters, INITIAL_STATE]
    for result in results:
        assert result.checked == np.prod(result.shape)
        assert result.relative_error < 1e-12, result
        assert result.passed


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_parameters_pass_centred_differences(cell):
    for result in check(make(cell, 2, embedding=4), "centred"):
        assert result.relative_error < 1e-8, result


@pytest.mark.slow
def test_assignment_network_has_a_tenth_of_the_published_error():
    """An even sample of each tensor stands in for all 23,667 parameters, which would take several seconds.

    `charloom gradcheck` and the service compare all of them.
    """
    problem = assignment_problem(VOCABULARY, IDS)
    results = {result.name: result for result in check(problem, "centred", elements=300)}
    assert set(ASSIGNMENT_FIGURES) < set(results)
    for name, figure in ASSIGNMENT_FIGURES.items():
        assert results[name].relative_error * 10 <= figure, results[name]
        assert results[name].assignment_figure == figure
        assert results[name].passed


def test_assignment_problem_has_the_sizes_of_the_assignment():
    problem = assignment_problem(VOCABULARY, IDS)
    assert problem.inputs.shape == (25, 1)
    assert problem.network.config == NetworkConfig(len(VOCABULARY), 100, 1, "elman")
    assert problem.network.flat.dtype == np.float64
    assert not problem.state.any()
    np.testing.assert_array_equal(problem.targets[:-1], problem.inputs[1:])


def test_excess_loss_is_the_cross_entropy_minus_ln_k():
    problem = make("gru", 2)
    tape = problem.network.tape(*problem.inputs.shape)
    excess = excess_losses(problem.network, problem, problem.state, tape)
    logits, _ = problem.network.forward(problem.inputs, problem.state)
    expected = character_losses(logits, problem.targets) - np.log(6)
    np.testing.assert_allclose(excess, expected, rtol=1e-10, atol=1e-12)


class Wrong:
    """A real cell with one planted fault."""

    def __init__(self, cell: Cell, fault: tuple[str, int, float]) -> None:
        self._cell, self._fault = cell, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cell, name)

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        self._cell.local_derivatives(previous, state, cache)
        if self._fault[0] == "derivative":
            np.multiply(cache[self._fault[1]], 1 + self._fault[2], out=cache[self._fault[1]])

    def step_backward(
        self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays, scratch: Array
    ) -> None:
        self._cell.step_backward(dstate, cache, dv, dprevious, scratch)
        if self._fault[0] == "direct":
            np.multiply(dprevious[self._fault[1]], 1 + self._fault[2], out=dprevious[self._fault[1]])

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        self._cell.input_gradient(dh, cache, dv)
        if self._fault[0] == "input":
            np.multiply(dv[self._fault[1]], 1 + self._fault[2], out=dv[self._fault[1]])


FAULTS = [
    *[("elman", ("derivative", index)) for index in (0,)],
    *[("gru", ("derivative", index)) for index in (0, 1, 2, 4, 5)],
    *[("lstm", ("derivative", index)) for index in (0, 1, 2, 3, 4, 5)],
    *[("gru", ("direct", 0)), ("lstm", ("direct", 1))],
    *[(cell, ("input", CELLS[cell].gates - 1)) for cell in CELLS],
]


@pytest.mark.parametrize(("cell", "fault"), FAULTS)
@pytest.mark.parametrize("size", [0.0, 1e-6])
def test_planted_fault_of_one_millionth_is_detected(monkeypatch, cell, fault, size):
    wrong = Wrong(CELLS[cell], (*fault, size))
    monkeypatch.setitem(CELLS, cell, wrong)
    worst = max(result.relative_error for result in check(make(cell, 2), "complex-step"))
    assert (worst > 1e-10) == bool(size), worst


def test_fault_in_the_weight_gradients_is_detected(monkeypatch):
    whole = recurrent._weight_gradients

    def slightly_off(gradients: LayerWeights, inputs: Array, tape: LayerTape) -> None:
        whole(gradients, inputs, tape)
        np.multiply(gradients.W, 1 + 1e-6, out=gradients.W)

    monkeypatch.setattr(recurrent, "_weight_gradients", slightly_off)
    failed = {result.name for result in check(make("gru", 1), "complex-step") if not result.passed}
    assert failed == {"layer0.W"}


def test_trained_network_can_be_checked():
    config = RunConfig(hidden=8, sequence_length=10)
    network = make_problem(config, VOCABULARY, IDS).network.astype(np.float32)
    problem = problem_for(network, IDS, 10, 4)
    assert all(result.passed for result in check(problem, "complex-step", elements=20))


def test_gradients_of_unused_parameters_are_zero():
    problem = make_problem(PRESETS["classic"].replace(hidden=4), VOCABULARY, IDS)
    unused = np.setdiff1d(np.arange(len(VOCABULARY)), problem.inputs)
    assert unused.size
    gradient, _ = analytic_gradients(problem)
    assert not Network(problem.network.config, gradient).parameters["layer0.U"][unused].any()


def test_invalid_gradient_checks_are_refused():
    with pytest.raises(ConfigError, match="centred, complex-step"):
        next(check(make("gru", 1), "guess"))
    with pytest.raises(TextError, match="needs 1001 characters"):
        problem_for(make("gru", 1).network, IDS, 100, 10)
