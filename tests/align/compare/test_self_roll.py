"""The sensitivity probe: a reference against itself moved."""

import numpy as np
import pytest

from align.compare import pieces
from align.compare.arrays import BFloat16
from align.compare.statistics import compare, self_roll_difference


@pytest.mark.parametrize("shape", [(2,), (5,), (1, 5), (5, 1), (3, 4), (4, 4), (2, 3, 5), (1, 1, 7)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8"])
@pytest.mark.parametrize("piece", [3, 8, 1 << 18])
def test_it_is_the_difference_to_a_rolled_copy(shape, dtype, piece, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", piece)
    reference = (100 * np.random.default_rng(0).random(shape)).astype(dtype)
    stride = (shape[-1] + 1) % reference.size or 1
    rolled = np.roll(reference.reshape(-1), -stride).reshape(shape)
    assert self_roll_difference(reference) == compare(rolled, reference)


def test_rows_and_columns_both_move():
    rows_alike = np.tile(np.arange(5.0), (4, 1))
    columns_alike = np.tile(np.arange(4.0)[:, None], (1, 5))
    assert self_roll_difference(rows_alike).max_abs > 0
    assert self_roll_difference(columns_alike).max_abs > 0


def test_a_tensor_that_one_row_and_one_column_map_on_itself_moves_by_one():
    alternating = np.where(np.arange(20) % 2, 1.0, -1.0).reshape(4, 5)
    assert np.array_equal(np.roll(alternating.reshape(-1), -6).reshape(4, 5), alternating)
    result = self_roll_difference(alternating)
    assert (result.differing, result.max_abs) == (20, 2.0)


@pytest.mark.parametrize("reference", [np.zeros(()), np.ones((1, 1)), np.zeros((0, 3)), np.full((3, 4), 2.5)])
def test_nothing_can_be_told_of_one_element_or_of_a_constant(reference):
    assert self_roll_difference(reference) is None


def test_nan_everywhere_is_a_constant_and_one_nan_is_not():
    assert self_roll_difference(np.full(4, np.nan)) is None
    assert self_roll_difference(np.array([np.nan, 1.0, 1.0])).nonfinite_differing == 2


def test_bfloat16_and_strided_references():
    bits = np.array([[0x3F80, 0x4000], [0x4040, 0x4080]], np.uint16)  # 1 2 3 4
    assert self_roll_difference(BFloat16(bits)).max_abs == 3.0
    strided = np.arange(12.0).reshape(3, 4).T
    assert self_roll_difference(strided) == self_roll_difference(np.ascontiguousarray(strided))
