import numpy as np
import pytest

from model.cells import Array
from model.errors import TextError
from model.evaluation import windowed_loss
from model.loss import character_losses, cross_entropy, log_softmax
from tests.support.networks import VOCABULARY, random_network


def make(seed: int = 0, scale: float = 3.0, dtype: type = np.float64) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, scale, (4, 3, 7)).astype(dtype), rng.integers(0, 7, (4, 3))


def test_log_softmax_of_large_logits_sums_to_one():
    logits, _ = make(scale=500.0)
    np.testing.assert_allclose(np.exp(log_softmax(logits)).sum(axis=-1), 1, rtol=1e-12)


def test_loss_is_the_mean_over_characters_for_every_reduction():
    for reduction in ("sum", "mean"):
        logits, targets = make()
        expected = character_losses(logits, targets).mean()
        loss, _ = cross_entropy(logits.copy(), targets, reduction)
        assert loss == pytest.approx(expected, rel=1e-12)


def test_uniform_prediction_has_a_loss_of_ln_k():
    loss, _ = cross_entropy(np.zeros((2, 2, 65)), np.ones((2, 2), int), "mean")
    assert loss == pytest.approx(np.log(65), rel=1e-15)


@pytest.mark.parametrize(("reduction", "scale"), [("sum", 1.0), ("mean", 1 / 12)])
def test_loss_gradient_equals_complex_step(reduction, scale):
    logits, targets = make()
    expected = np.zeros_like(logits)
    for index in np.ndindex(logits.shape):
        shifted = logits.astype(complex)
        shifted[index] += 1e-30j
        expected[index] = character_losses(shifted, targets).sum().imag / 1e-30 * scale
    _, gradient = cross_entropy(logits.copy(), targets, reduction)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-16)


def test_each_window_is_read_from_the_zero_state():
    network = random_network("gru", hidden=6)
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 100)
    losses = []
    for start in range(0, 98, 7):
        logits, _ = network.forward(ids[start : start + 7, None], network.zero_state(1))
        losses.append(character_losses(logits, ids[start + 1 : start + 8, None]))
    assert windowed_loss(network, ids, 7) == pytest.approx(np.mean(losses), rel=1e-6)
    with pytest.raises(TextError, match="5 characters contain no window of 5: 6 are needed"):
        windowed_loss(network, ids[:5], 5)
