import math

import numpy as np
import pytest

from model.cells import Array
from model.config import PRESETS, RunConfig
from model.optimizer import EPSILON, Optimizer, clip, learning_rate, make_optimizer


def run(config: RunConfig, gradients: list[Array], decayed: Array | None = None) -> tuple[Array, Optimizer]:
    parameters = np.linspace(-1, 1, len(gradients[0]))
    optimizer = make_optimizer(config, np.ones_like(parameters) if decayed is None else decayed)
    for gradient in gradients:
        optimizer.update(parameters, gradient.copy(), 0.1)
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


@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw"])
def test_optimizer_restored_from_its_tensors_continues_exactly(name):
    config = RunConfig(optimizer=name)
    parameters, optimizer = run(config, GRADIENTS[:3])
    other = make_optimizer(config, np.ones(8))
    for target, source in zip(other.tensors().values(), optimizer.tensors().values(), strict=True):
        target[...] = source
    for gradient in GRADIENTS[3:]:
        other.update(parameters, gradient.copy(), 0.1)
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


def test_cosine_schedule_warms_up_peaks_and_ends_at_its_floor():
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
