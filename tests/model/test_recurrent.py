"""Matrix products in blocks, and the alignment of buffers."""

import numpy as np
import pytest

from model import buffers, recurrent
from model.cells import CELLS
from model.layer_tape import LayerTape
from model.products import PIECES, UNPACKED, BlockedProduct
from model.recurrent import LayerWeights


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize(
    ("rows", "inner", "gates", "width", "max_pieces", "pieces", "blocks"),
    [
        (1, 256, 4, 64, 1, 1, 0),  # a vector
        (3, 5, 4, 6, 1, 1, 1),  # no whole block
        (16, 256, 4, 256, 1, 1, 4),  # an LSTM's step of 16 rows
        (16, 1024, 1, 256, PIECES[-1], 2, 4),  # its backward step
        (32, 1024, 1, 256, PIECES[-1], 4, 4),
        (256, 1024, 1, 256, PIECES[-1], 1, 1),  # no block is small enough
    ],
)
def test_blocked_product_equals_the_plain_product(
    rows, inner, gates, width, max_pieces, pieces, blocks, dtype
):
    rng = np.random.default_rng(0)
    x, matrix = (
        rng.normal(size=(rows, inner)).astype(dtype),
        rng.normal(size=(inner, gates * width)).astype(dtype),
    )
    scales = np.linspace(0.5, 1, gates).astype(np.float32)
    product = BlockedProduct(rows, inner, gates, width, dtype, max_pieces)
    multiply, operand, target = product.operands(matrix, scales)
    given = x if rows > 1 else x[0]
    multiply(product.operand(given), operand, target)
    out = product.out.reshape(len(product.out), gates, rows, width)
    assert len(out) == pieces
    assert product._blocks.shape[2:3] == ((blocks,) if blocks else ())
    expected = (x @ matrix).reshape(rows, gates, width).swapaxes(0, 1) * scales[:, None, None]
    tolerance = 1e-3 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(out.sum(axis=0), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_blocked_product_with_a_transpose_equals_the_plain_one(rows):
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(rows, 512)), rng.normal(size=(64, 512))
    product = BlockedProduct(rows, 512, 1, 64, np.float64, PIECES[-1], upright=False)
    for factor in (1, 2):  # the second time with reused memory
        multiply, operand, target = product.operands((factor * matrix).T)
        multiply(product.operand(x if rows > 1 else x[0]), operand, target)
        out = product.out.sum(axis=0).reshape(rows, 64)
        np.testing.assert_allclose(out, factor * (x @ matrix.T), rtol=1e-12, atol=1e-12)


def test_blocks_are_small_enough_to_avoid_a_copy():
    for rows in (2, 16, 32):
        product = BlockedProduct(rows, 1024, 1, 512, np.float32, PIECES[-1])
        *_, inner, width = product._blocks.shape
        assert rows * inner * width <= UNPACKED


@pytest.mark.parametrize("characters", [5, 50])  # fewer than the window's ids, and more
@pytest.mark.parametrize("cell", CELLS)
def test_ids_are_equivalent_to_one_hot_rows(cell, characters):
    rng = np.random.default_rng(0)
    width = CELLS[cell].gates * 4
    weights = LayerWeights(*(rng.normal(size=shape) for shape in ((characters, width), (4, width), (width,))))
    ids = rng.integers(0, characters, (3, 2))
    state = rng.normal(size=(CELLS[cell].states, 2, 4))
    given, rows = (
        recurrent.forward(weights, inputs, state, LayerTape(CELLS[cell], 3, 2, 4, np.float64))
        for inputs in (ids, np.eye(characters)[ids])
    )
    np.testing.assert_allclose(given, rows, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (7, 16, 256)])
def test_buffers_are_aligned_to_a_cache_line(shape, dtype):
    for array in [buffers.empty(shape, dtype) for _ in range(20)] + [buffers.zeros(shape, dtype)]:
        assert array.ctypes.data % buffers.LINE == 0
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.flags.c_contiguous
    assert not array.any()
    assert [buffers.whole_lines(count, np.float32) for count in (1, 16, 17)] == [16, 16, 32]


def test_rows_of_a_skewed_matrix_are_padded():
    matrix = buffers.skewed((5, 1024), np.float32)
    assert (matrix.shape, matrix.dtype) == ((5, 1024), np.float32)
    assert matrix.ctypes.data % buffers.LINE == 0
    assert matrix.strides == (1024 * 4 + buffers.LINE, 4)
