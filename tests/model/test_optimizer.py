import math

import numpy as np
import pytest

from model.cells import Array
from model.config import PRESETS, SETTINGS, RunConfig
from model.optimizer import EPSILON, SPAN, Optimizer, clip, learning_rate, make_optimizer
from model.orthogonal import Matrix

# one wide block, in the middle
W = slice(2, 6)
MATRICES = [Matrix(W, rows=1, gates=1, columns=4)]
NAMES = SETTINGS["optimizer"].choices


def update(optimizer: Optimizer, parameters: Array, given: Array) -> None:
    gradient = given.copy()

    def orthogonalise() -> None:
        block = gradient[W].reshape(1, 4)
        left, _, right = np.linalg.svd(block, full_matrices=False)
        block[...] = left @ right

    optimizer.update(parameters, gradient, 0.1, orthogonalise)


def run(config: RunConfig, gradients: list[Array], decayed: Array | None = None) -> tuple[Array, Optimizer]:
    parameters = np.linspace(-1, 1, len(gradients[0]))
    optimizer = make_optimizer(config, np.ones_like(parameters) if decayed is None else decayed, MATRICES)
    for gradient in gradients:
        update(optimizer, parameters, gradient)
    return parameters, optimizer


GRADIENTS = list(np.random.default_rng(0).normal(size=(5, 8)))


def test_adagrad_equals_its_equation():
    expected, m = np.linspace(-1, 1, 8), np.zeros(8)
    for g in GRADIENTS:
        m += g**2
        expected -= 0.1 * g / np.sqrt(m + EPSILON)
    parameters, optimizer = run(PRESETS["classic"], GRADIENTS)
    np.testing.assert_allclose(parameters, expected, rtol=1e-13)
    np.testing.assert_allclose(optimizer.tensors()["m"], m, rtol=1e-13)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_equals_its_equation(name):
    config = RunConfig(optimizer=name, beta1=0.8, beta2=0.95, weight_decay=0.3)
    decayed = np.array([1.0, 0.0] * 4)
    expected, m, v = np.linspace(-1, 1, 8), np.zeros(8), np.zeros(8)
    for t, g in enumerate(GRADIENTS, start=1):
        m = 0.8 * m + 0.2 * g
        v = 0.95 * v + 0.05 * g**2
        step = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.95**t)) + EPSILON)
        if name == "adamw":
            step += 0.3 * decayed * expected
        expected = expected - 0.1 * step
    np.testing.assert_allclose(run(config, GRADIENTS, decayed)[0], expected, rtol=1e-12)


def test_muon_updates_matrices_and_adamw_the_other_parameters():
    config = RunConfig(optimizer="muon", muon_momentum=0.9, muon_scale=0.3, weight_decay=0.4)
    decayed = np.array([1.0, 0.0] * 4)
    expected = run(config.replace(optimizer="adamw"), GRADIENTS, decayed)[0]
    w, m = np.linspace(-1, 1, 8)[W], np.zeros(4)
    for g in (gradient[W] for gradient in GRADIENTS):
        m = 0.9 * m + g
        direction = g + 0.9 * m
        orthogonal = direction / np.linalg.norm(direction)  # as a matrix of one row
        w = w - 0.1 * (0.3 * math.sqrt(4) * orthogonal + 0.4 * decayed[W] * w)
    expected[W] = w
    parameters, optimizer = run(config, GRADIENTS, decayed)
    np.testing.assert_allclose(parameters, expected, rtol=1e-12)
    np.testing.assert_allclose(optimizer.tensors()["m"][W], m, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_updated(name):
    size = 3 * SPAN + 5
    rng = np.random.default_rng(1)
    gradient, parameters = rng.normal(size=size), np.zeros(size)
    places = slice(SPAN // 2, 2 * SPAN), slice(2 * SPAN, 2 * SPAN + 8)
    matrices = [Matrix(place, 1, 1, place.stop - place.start) for place in places]
    optimizer = make_optimizer(RunConfig(optimizer=name), np.ones(size), matrices)
    optimizer.update(parameters, gradient.copy(), 0.1, lambda: None)
    np.testing.assert_array_equal(np.sign(parameters), -np.sign(gradient))


@pytest.mark.parametrize("name", NAMES)
def test_restored_optimizer_continues_exactly(name):
    config = RunConfig(optimizer=name)
    parameters, optimizer = run(config, GRADIENTS[:3])
    other = make_optimizer(config, np.ones(8), MATRICES)
    for target, source in zip(other.tensors().values(), optimizer.tensors().values(), strict=True):
        target[...] = source
    for gradient in GRADIENTS[3:]:
        update(other, parameters, gradient)
    np.testing.assert_array_equal(parameters, run(config, GRADIENTS)[0])


def test_clip_by_value_limits_each_element():
    gradient = np.array([-9.0, 1.0, 6.0])
    clip(gradient, "value", 5.0)
    assert gradient.tolist() == [-5, 1, 5]


def test_clip_by_norm_scales_only_gradients_over_the_limit():
    gradient = np.array([3.0, 4.0])
    clip(gradient, "norm", 1.0)
    np.testing.assert_allclose(gradient, [0.6, 0.8], rtol=1e-15)
    clip(gradient, "norm", 2.0)
    np.testing.assert_allclose(gradient, [0.6, 0.8], rtol=1e-15)


def test_clip_none_changes_nothing():
    gradient = np.array([3e6])
    clip(gradient, "none", 1.0)
    assert gradient[0] == 3e6


def test_constant_schedule_keeps_the_rate():
    assert {learning_rate(PRESETS["classic"], x) for x in (0, 0.3, 1)} == {0.1}


def test_cosine_schedule_warms_up_and_decays_to_its_floor():
    config = RunConfig(learning_rate=2.0, warmup=0.1, final_learning_rate=0.05)
    assert learning_rate(config, 0.05) == pytest.approx(1.0)
    assert learning_rate(config, 0.1) == pytest.approx(2.0)
    assert learning_rate(config, 0.55) == pytest.approx(2.0 * (0.05 + 0.95 / 2))
    assert learning_rate(config, 1.0) == pytest.approx(0.1)
    assert learning_rate(config, 1.3) == pytest.approx(0.1)
    rates = [learning_rate(config, x) for x in np.linspace(0.1, 1, 50)]
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(config, 0.0) > 0
    assert all(math.isfinite(learning_rate(RunConfig(warmup=w), x)) for w in (0, 1) for x in (0, 0.5, 1))
