"""model/reference.py against complex-step derivatives, and the fast code against model/reference.py."""

import re
from pathlib import Path

import numpy as np
import pytest

from model import reference
from model.cells import CELLS, Array
from model.loss import cross_entropy
from model.network import Network, NetworkConfig, named_views

MODEL = Path(reference.__file__).parent
STEPS, ROWS = 7, 3

every_cell = pytest.mark.parametrize("cell", CELLS)
every_depth = pytest.mark.parametrize("layers", [1, 2, 3])
with_and_without_embedding = pytest.mark.parametrize("embedding", [0, 4])


def problem(cell: str, layers: int, embedding: int) -> tuple[Network, Array, Array, Array]:
    """A float64 network, ids and targets (T, B), and a state (L, S, B, H), all random."""
    rng = np.random.default_rng(layers)
    config = NetworkConfig(6, 5, layers, cell, embedding)
    network = Network(config, rng.normal(0, 0.6, config.size()))
    inputs, targets = rng.integers(0, 6, (2, STEPS, ROWS))
    return network, inputs, targets, rng.normal(0, 0.5, network.zero_state(ROWS).shape)


def row_states(state: Array, row: int) -> list[list[Array]]:
    """One row of a state (L, S, B, H) in the form of the reference: a list of vectors for each layer."""
    return [list(layer[:, row]) for layer in state]


@every_cell
@every_depth
@with_and_without_embedding
def test_fast_forward_pass_equals_reference(cell, layers, embedding):
    network, inputs, _, state = problem(cell, layers, embedding)
    logits, tape = network.forward(inputs, state)
    for row in range(ROWS):
        states = row_states(state, row)
        for t in range(STEPS):
            o, states, _ = reference.step(network.parameters, reference.CELLS[cell], inputs[t, row], states)
            np.testing.assert_allclose(logits[t, row], o, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(tape.final_state[:, :, row], states, rtol=1e-12, atol=1e-12)


@every_cell
@every_depth
@with_and_without_embedding
def test_fast_backward_pass_equals_reference(cell, layers, embedding):
    network, inputs, targets, state = problem(cell, layers, embedding)
    logits, tape = network.forward(inputs, state)
    loss, dlogits = cross_entropy(logits, targets, "sum")
    gradient = network.backward(dlogits, tape)

    expected_loss, expected = 0.0, dict.fromkeys(network.parameters, 0.0)
    for row in range(ROWS):
        row_loss, gradients, _, dstates = reference.loss_and_gradients(
            network.parameters,
            reference.CELLS[cell],
            inputs[:, row],
            targets[:, row],
            row_states(state, row),
        )
        np.testing.assert_allclose(tape.initial_state_gradient[:, :, row], dstates, rtol=1e-12, atol=1e-12)
        expected_loss += row_loss
        expected = {name: expected[name] + gradients[name] for name in expected}
    assert loss == pytest.approx(expected_loss / inputs.size, rel=1e-12)
    for name, values in expected.items():
        np.testing.assert_allclose(gradient.parameters[name], values, rtol=1e-12, atol=1e-12, err_msg=name)


@every_cell
@every_depth
@with_and_without_embedding
def test_reference_gradients_equal_complex_step(cell, layers, embedding):
    network, inputs, targets, state = problem(cell, layers, embedding)
    inputs, targets = inputs[:, 0], targets[:, 0]
    states = row_states(state, 0)
    step = reference.CELLS[cell]
    _, gradients, _, dstates = reference.loss_and_gradients(network.parameters, step, inputs, targets, states)
    analytic = np.concatenate([gradients[name].ravel() for name in network.parameters])
    for k in range(0, network.flat.size, 7):  # 7 is coprime to every width, so every column is covered
        flat = network.flat.astype(np.complex128)
        flat[k] += 1e-30j
        loss, *_ = reference.loss_and_gradients(
            named_views(network.config, flat), step, inputs, targets, states
        )
        assert analytic[k] == pytest.approx(loss.imag / 1e-30, rel=1e-12, abs=1e-13)
    for layer in range(layers):
        for which, dstate in enumerate(dstates[layer]):
            shifted = [[x.astype(np.complex128) for x in of_layer] for of_layer in states]
            shifted[layer][which][2] += 1e-30j
            loss, *_ = reference.loss_and_gradients(network.parameters, step, inputs, targets, shifted)
            assert dstate[2] == pytest.approx(loss.imag / 1e-30, rel=1e-12, abs=1e-13)


def code_lines(text: str) -> list[str]:
    """The lines of Python code without indentation, blank lines and comment lines."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_backprop_md_quotes_the_whole_reference_in_order():
    source = (MODEL / "reference.py").read_text(encoding="utf-8")
    document = (MODEL.parent / "docs" / "backprop.md").read_text(encoding="utf-8")
    quoted = "\n".join(re.findall(r"```python\n(.*?)```", document, re.DOTALL))
    assert code_lines(quoted) == code_lines(source[source.index("def sigmoid") :])


def test_reference_has_at_most_150_lines():
    assert len((MODEL / "reference.py").read_text(encoding="utf-8").splitlines()) <= 150
