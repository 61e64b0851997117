"""Newton-Schulz iterations, and the blocks of the gradient that they are applied to."""

import tracemalloc

import numpy as np
import pytest

from model.cells import CELLS, Array
from model.config import PRESETS, RunConfig
from model.network import NetworkConfig, named_views
from model.orthogonal import QUINTIC, Blocks, NewtonSchulz, dense_matrices

RNG = np.random.default_rng(0)


def plain(matrix: Array, iterations: int) -> Array:
    """The published iteration."""
    a, b, c = QUINTIC
    y = matrix / (np.linalg.norm(matrix) + 1e-7)
    for _ in range(iterations):
        gram = y @ y.T
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y


def with_singular_values(values: Array) -> Array:
    left, _ = np.linalg.qr(RNG.normal(size=(len(values), len(values))))
    right, _ = np.linalg.qr(RNG.normal(size=(len(values), len(values))))
    return left @ np.diag(values) @ right


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (7, 7), (3, 8), (8, 3), (64, 64)])
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_newton_schulz_equals_the_published_iteration(shape, iterations):
    matrix = RNG.normal(size=shape)
    expected = plain(matrix, iterations)
    NewtonSchulz(matrix.shape, iterations, matrix.dtype)(matrix)
    np.testing.assert_allclose(matrix, expected, rtol=1e-12, atol=1e-13)


def test_newton_schulz_in_float32_is_close_to_float64():
    matrix = RNG.normal(size=(256, 256))
    single = matrix.astype(np.float32)
    NewtonSchulz((256, 256), 3, single.dtype)(single)
    np.testing.assert_allclose(single, plain(matrix, 3), atol=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_result_is_near_the_nearest_orthogonal_matrix(dtype):
    matrix = with_singular_values(np.linspace(0.3, 3, 64))
    left, _, right = np.linalg.svd(matrix)
    result = matrix.astype(dtype)
    NewtonSchulz((64, 64), 3, result.dtype)(result)
    values = np.linalg.svd(result, compute_uv=False)
    assert 0.65 < values.min() < values.max() < 1.21
    # it is the nearest one and not just any: R^T O Q is diagonal, with these values on the diagonal
    between = left.T @ result @ right.T
    np.testing.assert_allclose(between, np.diag(np.diag(between)), atol=1e-5)
    assert np.diag(between).min() > 0.65


def test_singular_values_of_a_random_matrix_approach_one():
    matrix = RNG.normal(size=(256, 256)).astype(np.float32)
    NewtonSchulz((256, 256), 5, matrix.dtype)(matrix)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values.max() < 1.21
    assert np.mean(values > 0.65) > 0.97


def test_zeros_stay_zeros():
    matrix = np.zeros((8, 8), np.float32)
    NewtonSchulz((8, 8), 3, matrix.dtype)(matrix)
    assert not matrix.any()


def test_newton_schulz_allocates_no_arrays():
    matrix = RNG.normal(size=(128, 3, 128)).astype(np.float32)[:, 1]
    newton_schulz = NewtonSchulz((128, 128), 3, matrix.dtype)
    newton_schulz(matrix)
    tracemalloc.start()
    newton_schulz(matrix)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4096  # a matrix has 65,536 bytes


def is_dense(name: str, embedding: int) -> bool:
    return name.endswith(".W") or (name.endswith(".U") and bool(name != "layer0.U" or embedding))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("layers", "embedding", "members", "processes"), [(1, 0, 1, 1), (3, 4, 2, 5), (2, 9, 3, 1)]
)
def test_only_gate_blocks_are_orthogonalised_once_each(cell, layers, embedding, members, processes):
    hidden, gates = 6, CELLS[cell].gates
    config = RunConfig(cell=cell, hidden=hidden, layers=layers, members=members, optimizer="muon")
    network = NetworkConfig(5, hidden, layers, cell, embedding)
    gradients = RNG.normal(size=(members, network.size()))
    expected = gradients.copy()
    for row in expected:
        for name, values in named_views(network, row).items():
            for gate in range(gates if is_dense(name, embedding) else 0):
                block = values[:, gate * hidden : (gate + 1) * hidden]
                block[...] = plain(block, 3)
    for first in range(processes):
        Blocks(network, config, gradients, first, processes).orthogonalise()
    np.testing.assert_allclose(gradients, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("embedding", [0, 4])
def test_dense_matrices_are_where_their_views_are(embedding):
    network = NetworkConfig(5, 3, 2, "gru", embedding)
    flat = np.zeros((2, network.size()))
    for row in flat:
        for name, values in named_views(network, row).items():
            values[...] = is_dense(name, embedding)
    marked = np.zeros(flat.size)
    for matrix in dense_matrices(network, 2):
        marked[matrix.place] = 1
        assert marked[matrix.place].size == matrix.rows * matrix.gates * matrix.columns
    np.testing.assert_array_equal(marked, flat.reshape(-1))


def test_two_processes_share_the_work_equally():
    config, network = PRESETS["gru-pair-muon"], NetworkConfig(65, 256, 1, "gru", 128)
    gradients = np.zeros((2, network.size()), np.float32)
    for first in range(2):
        blocks = Blocks(network, config, gradients, first, processes=2)._blocks
        assert [block.shape for block in blocks] == [(256, 256)] * 3 + [(128, 256)] * 3
