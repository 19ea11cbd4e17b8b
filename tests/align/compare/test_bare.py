"""Two dictionaries of arrays from elsewhere: every name of either side, strict, with assumed limits or a fixed one."""

import math

import numpy as np
import pytest

from align.compare.arrays import BFloat16
from align.compare.bare import compare_dictionaries
from align.errors import UsageError


def only_row(candidate, reference, fixed=None):
    (row,) = compare_dictionaries({"x": candidate}, {"x": reference}, fixed).rows
    return row


def scaled(reference, ulps, which=None):
    """The reference moved by so many ulp of float32 at 1, everywhere or at one place."""
    moved = np.array(reference)
    moved[... if which is None else which] += np.float32(ulps * 2.0**-23)
    return moved


SIGNS = np.where(np.arange(4096) % 2, 1.25, -0.75).astype(np.float32)  # rms 1.03: an ulp there is 2^-23


def test_nested_dictionaries_become_paths_in_order():
    a = {"loss": {"0": np.float32(1), "1": np.float32(2)}, "grad": [np.zeros(2), {"w": np.zeros(1)}], "lr": 0.1}
    result = compare_dictionaries(a, a)
    assert [row.name for row in result.rows] == ["loss/0", "loss/1", "grad/0", "grad/1/w", "lr"]
    assert (result.verdict, result.compared) == ("aligned", 5)


def test_names_of_either_side_alone_are_missing_and_the_run_is_misaligned():
    result = compare_dictionaries({"a": np.ones(2), "b": np.ones(2)}, {"b": np.ones(2), "c": {"d": np.ones(3)}})
    rows = {row.name: (row.verdict, row.reason) for row in result.rows}
    assert rows == {
        "a": ("missing", "presence: float64 (2,) against absent"),
        "b": ("aligned", ""),
        "c/d": ("missing", "presence: absent against float64 (3,)"),
    }
    assert result.verdict == "misaligned"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({}, {}),
        ({"a": {}}, {"a": {}}),
        ({"x": np.ones(1)}, {"y": np.ones(1)}),
        ({"x": np.ones((0, 3))}, {"x": np.ones((0, 3))}),
    ],
)
def test_where_nothing_meets_nothing_was_compared(a, b):
    result = compare_dictionaries(a, b)
    assert (result.compared, result.verdict) == (0, "empty")


@pytest.mark.parametrize(("ulps", "verdict"), [(0, "aligned"), (60, "aligned"), (70, "misaligned")])
def test_the_relative_frobenius_difference_may_be_64_ulp(ulps, verdict):
    row = only_row(scaled(SIGNS, ulps), SIGNS)
    assert (row.verdict, row.limits.rule) == (verdict, "assumed, no twin")
    assert row.limits.rel == 64 * 2.0**-23 / row.difference.reference_rms
    assert ("relative Frobenius difference" in row.reason) == (verdict == "misaligned")


@pytest.mark.parametrize(("ulps", "verdict"), [(1000, "aligned"), (1100, "misaligned")])
def test_one_element_may_be_1024_ulp_of_the_rms_away(ulps, verdict):
    row = only_row(scaled(SIGNS, ulps, which=17), SIGNS)
    assert row.verdict == verdict
    assert row.limits.max_abs == 1024 * 2.0**-23
    if verdict == "misaligned":
        assert "greatest absolute difference" in row.reason
        assert "at (17,): " in row.reason


@pytest.mark.parametrize(("ulps", "verdict"), [(16, "aligned"), (17, "misaligned")])
def test_a_scalar_may_be_16_representable_numbers_away(ulps, verdict):
    reference = np.array(7.2244, np.float32)
    candidate = np.array(reference.view(np.int32) + ulps, np.int32).view(np.float32).reshape(())
    row = only_row(candidate, reference)
    assert (row.verdict, row.difference.max_ulp, row.limits.max_ulp) == (verdict, ulps, 16)


def test_the_limit_follows_the_type_and_the_scale():
    for dtype, digits in ((np.float64, 52), (np.float32, 23), (np.float16, 10)):
        for scale in (2.0**-8, 1.0, 2.0**8):
            reference = np.full(64, scale, dtype)
            row = only_row(reference.copy(), reference)
            assert row.limits.max_abs == 1024 * scale * 2.0**-digits
    assert only_row(BFloat16(np.full(4, 0x3F80, np.uint16)), BFloat16(np.full(4, 0x3F80, np.uint16))).limits.rel == 0.5


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_and_booleans_must_be_equal(dtype):
    reference = np.array([0, 1, 1, 0], dtype)
    assert only_row(reference.copy(), reference).verdict == "aligned"
    row = only_row(~reference if dtype is np.bool_ else reference + dtype(1), reference)
    assert (row.verdict, row.limits.rule) == ("misaligned", "exact")


def test_a_reference_of_zeros_allows_nothing():
    assert only_row(np.zeros(4), np.zeros(4)).verdict == "aligned"
    assert only_row(np.full(4, 1e-300), np.zeros(4)).verdict == "misaligned"


def test_fixed_gates_by_the_mean_as_the_package_does():
    reference = np.zeros(1000)
    outlier = reference.copy()
    outlier[3] = 9.9e-4  # mean 9.9e-7
    row = only_row(outlier, reference, fixed=1e-6)
    assert (row.verdict, row.limits.rule, row.limits.mean_abs) == ("aligned", "fixed", 1e-6)
    row = only_row(outlier, reference, fixed=9.8e-7)
    assert (row.verdict, row.reason.split(";")[0]) == (
        "misaligned",
        "mean absolute difference 9.9e-07 exceeds 9.8e-07 (fixed)",
    )


@pytest.mark.parametrize(
    ("candidate", "reference", "reason"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, 0.0]), "nonfinite"),
        (np.ones((2, 3)), np.ones((3, 2)), "shape"),
        (np.ones((1,)), np.ones((4,)), "shape"),
        (np.ones(2, np.float32), np.ones(2, np.float64), "dtype"),
    ],
)
def test_fixed_is_as_strict_about_form(candidate, reference, reason):
    row = only_row(candidate, reference, fixed=1e9)
    assert row.verdict == "misaligned"
    assert row.reason.startswith(reason)
    assert compare_dictionaries({"x": candidate}, {"y": candidate}, fixed=1e9).rows[0].verdict == "missing"


@pytest.mark.parametrize("fixed", [math.nan, math.inf, -1e-6])
def test_a_tolerance_that_is_none_is_refused(fixed):
    with pytest.raises(UsageError, match="finite number of at least 0"):
        compare_dictionaries({}, {}, fixed)


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": "text"}}, "a/b: holds a str"),
        ({"a": [np.array(["x"])]}, "a/0: cannot compare arrays of <U1"),
        ({"a": np.array([{}])}, "a: cannot compare arrays of object"),
        ({"a": None}, "a: holds a NoneType"),
        ({"a/b": np.ones(1), "a": {"b": np.ones(1)}}, "a/b: two entries"),
        ({1: np.ones(1), "1": np.ones(1)}, "1: two entries"),
        (nested(100), "nested more than 64 levels deep"),
        (2**70, "the top level: cannot compare arrays of object"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_error(value, message):
    with pytest.raises(UsageError, match=message):
        compare_dictionaries(value, {})
    with pytest.raises(UsageError, match=message):
        compare_dictionaries({}, value)
