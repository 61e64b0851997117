"""Tests that every cell must pass, with one layer and with several."""

import numpy as np
import pytest

from model.cells import CELLS, Array
from model.config import PRESETS, RunConfig
from model.errors import ConfigError
from model.loss import cross_entropy
from model.network import Network, NetworkConfig, named_views

every_cell = pytest.mark.parametrize("cell", CELLS)
every_depth = pytest.mark.parametrize("layers", [1, 2, 3])


def make(
    cell: str, layers: int = 1, hidden: int = 6, vocabulary: int = 5, dtype: type = np.float64
) -> Network:
    config = NetworkConfig(vocabulary, hidden, layers, cell)
    flat = np.random.default_rng(1).normal(0, 0.6, config.size()).astype(dtype)
    return Network(config, flat)


def make_inputs(network: Network, steps: int = 12, rows: int = 3, seed: int = 2) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, network.config.vocabulary, (steps, rows))
    state = rng.normal(0, 0.5, network.zero_state(rows).shape).astype(network.flat.dtype)
    return inputs, state


def gradients(network: Network, inputs: Array, targets: Array, state: Array) -> tuple[Array, Array]:
    logits, tape = network.forward(inputs, state)
    _, dlogits = cross_entropy(logits, targets, "sum")
    return network.backward(dlogits, tape).flat, tape.initial_state_gradient


@every_cell
@every_depth
def test_sequence_equals_its_parts_with_carried_state(cell, layers):
    network = make(cell, layers)
    inputs, state = make_inputs(network)
    whole = network.forward(inputs, state)[0].copy()
    parts = []
    for start in (0, 4, 8):
        logits, tape = network.forward(inputs[start : start + 4], state)
        parts.append(logits.copy())
        state = tape.final_state
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-13, atol=1e-13)


@every_cell
@every_depth
def test_reused_tape_gives_the_gradients_of_a_new_one(cell, layers):
    network = make(cell, layers)
    inputs, state = make_inputs(network)
    targets, _ = make_inputs(network, seed=3)
    fresh = gradients(network, inputs, targets, state)
    tape = network.tape(*inputs.shape)
    other_inputs, other_state = make_inputs(network, seed=4)
    for x, s in ((other_inputs, other_state), (inputs, state)):
        logits, _ = network.forward(x, s, tape)
        _, dlogits = cross_entropy(logits, targets, "sum")
        gradient = network.backward(dlogits, tape).flat
    np.testing.assert_array_equal(gradient, fresh[0])
    np.testing.assert_array_equal(tape.initial_state_gradient, fresh[1])


@every_cell
def test_passes_do_not_change_parameters_state_or_inputs(cell):
    network = make(cell, 2)
    inputs, state = make_inputs(network)
    before = network.flat.copy(), inputs.copy(), state.copy()
    gradients(network, inputs, inputs, state)
    for now, then in zip((network.flat, inputs, state), before, strict=True):
        np.testing.assert_array_equal(now, then)


@every_cell
def test_rows_of_a_batch_are_independent(cell):
    network = make(cell, 2)
    inputs, state = make_inputs(network)
    together = network.forward(inputs, state)[0].copy()
    for row in range(inputs.shape[1]):
        alone, _ = network.forward(inputs[:, row : row + 1], state[:, :, row : row + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, row], rtol=1e-13, atol=1e-13)


@every_cell
def test_gradient_is_linear_in_the_upstream_gradient(cell):
    """Uses random upstream gradients, which no loss would produce."""
    network = make(cell, 2)
    inputs, state = make_inputs(network)
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(2, *inputs.shape, network.config.vocabulary))

    def back(dlogits: Array) -> Array:
        _, tape = network.forward(inputs, state)
        return network.backward(dlogits, tape).flat

    np.testing.assert_allclose(
        back(first) + 2 * back(second), back(first + 2 * second), rtol=1e-9, atol=1e-10
    )


@every_cell
def test_single_steps_equal_the_sequence(cell):
    network = make(cell, 2)
    inputs, state = make_inputs(network)
    whole = network.forward(inputs, state)[0].copy()
    for t, ids in enumerate(inputs):
        logits, state = network.step(ids, state)
        np.testing.assert_allclose(logits, whole[t], rtol=1e-13, atol=1e-13)


@every_cell
def test_float32_network_computes_in_float32(cell):
    network = make(cell, dtype=np.float32)
    inputs, state = make_inputs(network)
    logits, tape = network.forward(inputs, state)
    assert logits.dtype == network.backward(logits, tape).flat.dtype == tape.final_state.dtype == np.float32


def test_complex_state_in_a_real_network_is_refused():
    network = make("elman")
    inputs, state = make_inputs(network)
    with pytest.raises(ConfigError, match="astype"):
        network.forward(inputs, state.astype(np.complex128))


@every_cell
@every_depth
def test_parameters_are_views_of_the_flat_array(cell, layers):
    network = make(cell, layers)
    assert sum(values.size for values in network.parameters.values()) == network.flat.size
    for values in network.parameters.values():
        assert np.shares_memory(values, network.flat)
    assert list(network.parameters)[-2:] == ["V", "c"]
    assert len(network.parameters) == 3 * layers + 2


def test_flat_array_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="Given: 7"):
        named_views(NetworkConfig(5, 6, 1, "gru"), np.zeros(7))


@pytest.mark.parametrize(
    ("field", "value"), [("cell", "gpt"), ("hidden", 0), ("layers", 0), ("vocabulary", 0)]
)
def test_invalid_network_sizes_are_refused(field, value):
    sizes = {"vocabulary": 5, "hidden": 6, "layers": 1, "cell": "gru"} | {field: value}
    with pytest.raises(ConfigError, match=field):
        NetworkConfig(**sizes)


def test_normal_initialisation_gives_small_weights_and_no_bias():
    config = NetworkConfig(80, 100, 1, "elman")
    network = Network.initialise(config, PRESETS["classic"], np.random.default_rng(0), np.float64)
    for name, values in network.parameters.items():
        if name in ("layer0.b", "c"):
            assert not values.any()
        else:
            assert values.std() == pytest.approx(0.01, rel=0.03)
            assert abs(values.mean()) < 0.0005


def test_uniform_initialisation_sets_forget_biases_to_one():
    config = NetworkConfig(20, 64, 2, "lstm")
    network = Network.initialise(config, RunConfig(cell="lstm"), np.random.default_rng(0))
    for layer in (0, 1):
        bias = network.parameters[f"layer{layer}.b"]
        assert (bias[64:128] == 1).all()
        assert not bias[:64].any()
        assert not bias[128:].any()
    assert np.abs(network.parameters["V"]).max() <= 1 / 8
