"""The order of checks, and that the first that fails is named with both sides."""

import numpy as np
import pytest

from align.compare.arrays import BFloat16
from align.compare.statistics import compare
from align.compare.strict import CHECKS, Failure, check, check_form, check_values

ONE = np.ones((2, 3), np.float32)


def with_value(value, at=(0, 1), dtype=np.float32):
    array = np.ones((2, 3), dtype)
    array[at] = value
    return array


CASES = [
    (None, ONE, "presence", "presence: absent against float32 (2, 3)"),
    (ONE, None, "presence", "presence: float32 (2, 3) against absent"),
    (ONE, ONE.astype(np.float64), "dtype", "dtype: float32 against float64"),
    (ONE.astype(np.int32), ONE.astype(np.uint32), "dtype", "dtype: int32 against uint32"),
    (ONE.astype(np.uint16), BFloat16(ONE.astype(np.uint16)), "dtype", "dtype: uint16 against bfloat16"),
    (np.ones((1,), np.float32), np.ones((), np.float32), "shape", "shape: (1,) against ()"),
    (ONE, ONE.T, "shape", "shape: (2, 3) against (3, 2)"),
    (np.ones((0, 3)), np.ones((3, 0)), "shape", "shape: (0, 3) against (3, 0)"),
    (with_value(np.nan), ONE, "nonfinite", "nonfinite: nan against 1.0 at (0, 1)"),
    (ONE, with_value(np.inf), "nonfinite", "nonfinite: 1.0 against inf at (0, 1)"),
    (with_value(np.inf), with_value(-np.inf), "nonfinite", "nonfinite: inf against -inf at (0, 1)"),
    (with_value(np.nan), with_value(np.inf), "nonfinite", "nonfinite: nan against inf at (0, 1)"),
    (with_value(2.0), ONE, "values", "values: 2.0 against 1.0 at (0, 1)"),
    (ONE * 2, ONE, "values", "values: 2.0 against 1.0 at (0, 0), 6 positions differ"),
    (with_value(7, dtype=np.int8), np.ones((2, 3), np.int8), "values", "values: 7 against 1 at (0, 1)"),
]


@pytest.mark.parametrize(("candidate", "reference", "name", "text"), CASES)
def test_the_first_failing_check_is_named_with_both_sides(candidate, reference, name, text):
    failure = check(candidate, reference).failure
    assert (failure.check, str(failure)) == (name, text)


def test_the_checks_come_in_order():
    # One pair that fails from dtype on, mended one check after the other.
    reference = with_value(np.nan)
    candidates = [None, np.ones((6,)), np.ones((6,), np.float32), ONE * 3, with_value(np.nan) * 3, reference.copy()]
    failures = [check(candidate, reference).failure for candidate in candidates]
    assert [failure and failure.check for failure in failures] == [*CHECKS, None]


@pytest.mark.parametrize(
    "array", [ONE, np.zeros((0, 3)), np.zeros(()), with_value(np.nan), with_value(-np.inf), np.array([True, False])]
)
def test_equal_arrays_fail_no_check(array):
    result = check(array, array.copy())
    assert (result.failure, result.comparable) == (None, True)
    assert result.difference.equal


def test_statistics_are_there_whenever_the_shapes_agree():
    assert check(ONE, None).difference is None
    assert check(ONE, ONE.T).difference is None
    wider = check(ONE * np.float32(1.5), ONE.astype(np.float64))
    assert wider.failure.check == "dtype"
    assert (wider.difference.max_abs, wider.comparable) == (0.5, False)


def test_only_finite_values_are_a_question_of_size():
    assert check(with_value(2.0), ONE).comparable
    assert not check(with_value(np.nan), ONE).comparable


def test_parts_can_be_asked_alone():
    assert check_form(ONE, ONE * 2) is None
    assert check_values(compare(ONE, ONE * 2)) == Failure("values", "1.0", "2.0", (0, 0), 6)


def test_a_row_of_nothing_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="neither side"):
        check(None, None)
