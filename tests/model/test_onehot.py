"""Gradients of one-hot inputs, by a matrix product and by a sum for each character."""

import tracemalloc

import numpy as np
import pytest

from model import onehot
from model.cells import Array
from model.onehot import one_hot_gradient, product, sums

WAYS = [product, sums]


def case() -> tuple[Array, Array, Array]:
    steps, rows, characters, width = 7, 4, 9, 6
    rng = np.random.default_rng(0)
    ids = rng.integers(0, characters - 2, (steps, rows)).astype(np.int32)  # the last two do not occur
    gradient = rng.normal(size=(ids.size, width))
    expected = np.zeros((characters, width))
    np.add.at(expected, ids.ravel(), gradient)
    return ids, gradient, expected


@pytest.mark.parametrize("way", WAYS)
def test_each_character_gets_the_sum_of_its_own_rows(way):
    ids, gradient, expected = case()
    out = np.full_like(expected, 7.0)  # previous content, which must be overwritten
    way(ids.ravel(), gradient, out)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14)
    assert not out[-2:].any()


@pytest.mark.parametrize("way", WAYS)
def test_gradient_of_one_character_fills_only_its_row(way):
    out = np.empty((3, 2))
    way(np.array([1]), np.array([[2.0, 3.0]]), out)
    assert out.tolist() == [[0, 0], [2, 3], [0, 0]]


@pytest.mark.parametrize(("steps", "taken"), [(25, "product"), (1000, "sums")])
def test_faster_method_is_chosen_by_the_number_of_steps(monkeypatch, steps, taken):
    called = []
    for way in WAYS:
        monkeypatch.setattr(onehot, way.__name__, lambda *_, name=way.__name__: called.append(name))
    one_hot_gradient(np.zeros((steps, 1), np.int32), np.zeros((steps, 100)), np.zeros((65, 100)))
    assert called == [taken]


def test_gradient_of_a_large_vocabulary_uses_little_memory():
    ids = np.arange(2000, dtype=np.int32).reshape(200, 10) * 10
    gradient = np.ones((2000, 8), np.float32)
    out = np.empty((20_000, 8), np.float32)
    tracemalloc.start()
    one_hot_gradient(ids, gradient, out)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2e6  # bytes; a product would need 2,000 rows of 20,000 columns, 160 MB
    assert out.sum() == gradient.sum()
    assert not out[1::10].any()
