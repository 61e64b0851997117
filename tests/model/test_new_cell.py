"""A new cell is added in one place, CELLS, and passes the tests that every cell must pass."""

import numpy as np
import pytest
from numpy import add, multiply, subtract, tanh

from model.cells import CELLS, Array, Arrays
from model.checkpoint import decode, encode
from model.config import RunConfig
from model.errors import ConfigError
from model.gradcheck import check
from model.training import Training, train
from model.vocabulary import Vocabulary
from tests.model import test_generation, test_gradcheck, test_network

TEXT = "the cat sat on the mat; the dog sat on the log. " * 30
VOCABULARY = Vocabulary.from_text(TEXT)


class Leaky:
    """h = (h_prev + tanh(u + v)) / 2."""

    gates, states, cached = 1, 1, 1
    scales, biases = (1,), (0,)
    halves, kept, slopes, gradients = (0,), (0,), (0,), (0,)
    half = np.array(0.5, np.float32)

    def step(
        self, u: Arrays, v: Arrays, previous: Arrays, state: Arrays, cache: Arrays, scratch: Array
    ) -> None:
        a = tanh(add(u[0], v[0], cache[0]), cache[0])
        multiply(add(previous[0], a, state[0]), self.half, state[0])

    def local_derivatives(self, previous: Arrays, state: Arrays, cache: Arrays) -> None:
        """From a to dh/dv = (1 - a^2) / 2."""
        squared = multiply(cache[0], cache[0], cache[0])
        multiply(subtract(np.float32(1), squared, cache[0]), self.half, cache[0])

    def step_backward(
        self, dstate: Arrays, cache: Arrays, dv: Arrays, dprevious: Arrays, scratch: Array
    ) -> None:
        multiply(dstate[0], cache[0], dv[0])
        add(dprevious[0], multiply(dstate[0], self.half, scratch), dprevious[0])

    def input_gradient(self, dh: Array, cache: Arrays, dv: Arrays) -> None:
        """du = dv."""


@pytest.fixture(autouse=True)
def leaky(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CELLS, "leaky", Leaky())


def test_new_cell_is_accepted_by_the_configuration():
    assert RunConfig(cell="leaky").cell == "leaky"
    with pytest.raises(ConfigError, match="elman, gru, lstm, leaky"):
        RunConfig(cell="gpt")


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_new_cell_passes_the_network_tests(layers):
    test_network.test_sequence_equals_its_parts_with_carried_state("leaky", layers)
    test_network.test_reused_tape_gives_the_gradients_of_a_new_one("leaky", layers)
    for test in (
        test_network.test_passes_do_not_change_parameters_state_or_inputs,
        test_network.test_rows_of_a_batch_are_independent,
        test_network.test_gradient_is_linear_in_the_upstream_gradient,
        test_network.test_single_steps_equal_the_sequence,
        test_network.test_float32_network_computes_in_float32,
    ):
        test("leaky")


@pytest.mark.parametrize(("layers", "embedding"), [(1, 0), (2, 0), (3, 4)])
def test_new_cell_has_correct_gradients(layers, embedding):
    test_gradcheck.test_parameters_and_initial_state_pass_complex_step("leaky", layers, embedding)


def test_wrong_gradient_of_a_new_cell_is_detected(monkeypatch):
    monkeypatch.setitem(CELLS, "leaky", test_gradcheck.Wrong(Leaky(), ("derivative", 0, 1e-6)))
    assert not all(result.passed for result in check(test_gradcheck.make("leaky", 2), "complex-step"))


@pytest.mark.slow
def test_new_cell_writes_the_same_bytes_in_any_batch():
    test_generation.test_row_writes_the_same_bytes_in_any_batch("leaky", lambda decoder: decoder)


def test_new_cell_trains_and_resumes_to_the_bit():
    config = RunConfig(
        cell="leaky", hidden=8, streams=4, sequence_length=8, steps=20, validate_every=10, sample_length=20
    )
    ids = VOCABULARY.encode(TEXT)
    whole = Training(config, VOCABULARY, ids, clock=lambda: 0.0)
    losses = [event.validation_loss for event in train(whole) if event.validation_loss is not None]
    assert losses[-1] < losses[0]
    first = Training(config, VOCABULARY, ids, clock=lambda: 0.0)
    next(event for event in train(first) if event.step == 7)
    second = Training.resume(decode(encode(first.checkpoint())), ids, clock=lambda: 0.0)
    list(train(second))
    assert encode(second.checkpoint()) == encode(whole.checkpoint())
