"""`compare` against the exact oracle: every dtype, every strange value, every boundary."""

import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from align.compare import pieces
from align.compare.arrays import BFloat16
from align.compare.statistics import compare
from tests.align.compare.oracle import answer, rounded

# Within a piece 2,048 elements are summed in registers: at most 2,048 roundings of 2^-53 in any figure here.
ROUNDING = 2048 * 2.0**-53
FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
TINY = {"float16": 2.0**-24, "float32": 2.0**-149, "float64": 2.0**-1074}
HUGE = {"float16": 65504.0, "float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}
# Compiling the kernels of a pair of types for the first time takes seconds.
relaxed = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def elements(dtype):
    """All values of a type, with the strange ones far more often than chance would have them."""
    if dtype == "bfloat16":
        strange = [0x0000, 0x8000, 0x0001, 0x8001, 0x3F80, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0xFFC1]
        return st.sampled_from(strange) | st.integers(0, 0xFFFF)
    if dtype in FLOATS:
        strange = [0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, TINY[dtype], -TINY[dtype], HUGE[dtype], -HUGE[dtype]]
        if dtype == "float64":
            strange += [1e200, -1e200, 1e-200, 3e-200, 1e154, 1e-162]
        return st.sampled_from(strange) | st.floats(width=8 * np.dtype(dtype).itemsize)
    if dtype == "bool":
        return st.booleans()
    bounds = np.iinfo(dtype)
    edges = [bounds.min, bounds.max, bounds.max - 1, 0, 1]
    return st.sampled_from(edges) | st.integers(int(bounds.min), int(bounds.max))


@st.composite
def arrays(draw, dtype, shape):
    stored = "uint16" if dtype == "bfloat16" else dtype
    array = draw(hnp.arrays(stored, shape, elements=elements(dtype), fill=st.nothing()))
    return BFloat16(array) if dtype == "bfloat16" else array


@st.composite
def pairs(draw, candidates=FLOATS + INTEGERS, references=None):
    """Two arrays of one shape; of one dtype unless `references` is given; often equal in most places."""
    dtype = draw(st.sampled_from(candidates))
    other = draw(st.sampled_from(references)) if references else dtype
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    candidate, reference = draw(arrays(dtype, shape)), draw(arrays(other, shape))
    if dtype == other and draw(st.booleans()):
        keep = draw(hnp.arrays(bool, shape))
        ours, theirs = (x.bits if dtype == "bfloat16" else x for x in (candidate, reference))
        ours[keep] = theirs[keep]
    return candidate, reference


def agrees(value, expected):
    """To the rounding of sums, and to the smallest number where the figure itself is subnormal."""
    if math.isinf(expected) or math.isinf(value):
        # A figure at the very edge of float64 may round either way.
        return value == expected or min(value, expected) > 0.999 * HUGE["float64"]
    return abs(value - expected) <= ROUNDING * abs(expected) + 2.0**-1073


def assert_agrees(result, expected, shape):
    index = tuple(int(i) for i in np.unravel_index(expected.position, shape)) if expected.position >= 0 else None
    first = expected.nonfinite_position
    nonfinite_index = tuple(int(i) for i in np.unravel_index(first, shape)) if first >= 0 else None
    assert result.max_abs == expected.max_abs
    if not math.isinf(
        expected.max_abs
    ):  # several that overflow are one infinity: which is the greatest is told by piece
        assert result.index == index
    assert (result.differing, result.pairs) == (expected.differing, expected.pairs)
    assert result.equal is (expected.differing == 0)
    assert (result.nan, result.inf) == (expected.nan, expected.inf)
    assert (result.nonfinite_differing, result.nonfinite_index) == (expected.nonfinite_differing, nonfinite_index)
    assert result.max_ulp == expected.max_ulp
    assert (result.candidate_max, result.reference_max) == (expected.candidate_max, expected.reference_max)
    for figure in ("rms", "rel", "max_rel", "candidate_rms", "reference_rms"):
        value, exact = getattr(result, figure), getattr(expected, figure)
        assert agrees(value, exact), (figure, value, exact)
    assert agrees(result.mean_abs, rounded(expected.mean_abs)), (result.mean_abs, expected.mean_abs)
    assert abs(result.cosine - expected.cosine) <= ROUNDING


@relaxed
@given(pairs())
def test_same_dtype_agrees_with_the_exact_oracle(pair):
    assert_agrees(compare(*pair), answer(*pair), pair[0].shape)


@relaxed
@given(pairs(("float16", "bfloat16", "float32"), ("float64", "float32")))
def test_working_type_against_float64_agrees_with_the_exact_oracle(pair):
    assert_agrees(compare(*pair), answer(*pair), pair[0].shape)


@relaxed
@given(pairs(("int8", "uint8", "int32", "uint32", "int64", "bool"), ("int16", "uint16", "int64", "bool")))
def test_mixed_integers_agree_with_the_exact_oracle(pair):
    assert_agrees(compare(*pair), answer(*pair), pair[0].shape)


@relaxed
@given(pairs(("uint8", "int16", "int32", "bool"), ("float32", "float64")))
def test_integers_against_floats_agree_with_the_exact_oracle(pair):
    assert_agrees(compare(*pair), answer(*pair), pair[0].shape)


@relaxed
@given(pairs((*FLOATS, "int64", "uint64")), st.integers(1, 7), st.integers(1, 3))
def test_pieces_of_any_size_agree_with_the_exact_oracle(pair, piece, threads):
    with patch.object(pieces, "PIECE", piece):
        result = compare(*pair, threads=threads)
    assert_agrees(result, answer(*pair), pair[0].shape)


@relaxed
@given(st.data())
def test_values_so_large_or_small_that_squares_overflow_or_underflow(data):
    scale = st.sampled_from([2.0**-1060, 1e-300, 1e-200, 1e-160, 1.0, 1e160, 1e200, 1e300])
    value = st.builds(lambda x, s: x * s, st.floats(-8, 8), scale)
    array = hnp.arrays(np.float64, data.draw(st.integers(1, 9)), elements=value, fill=st.nothing())
    candidate = data.draw(array)
    reference = data.draw(hnp.arrays(np.float64, candidate.shape, elements=value, fill=st.nothing()))
    with patch.object(pieces, "PIECE", data.draw(st.integers(1, 9))):
        result = compare(candidate, reference)
    assert_agrees(result, answer(candidate, reference), candidate.shape)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-162, 1.0, 1e154, 1e200, 1e307])
def test_figures_scale_with_the_values(scale):
    candidate = np.array([3.0, 0.0, -1.0]) * scale
    reference = np.array([3.0, 4.0, -1.0]) * scale
    result = compare(candidate, reference)
    assert result.max_abs == 4.0 * scale
    assert result.rms == pytest.approx(4.0 / math.sqrt(3.0) * scale, rel=1e-3 if scale < 1e-300 else 1e-15, abs=0.0)
    assert result.rel == pytest.approx(4.0 / math.sqrt(26.0), rel=1e-3 if scale < 1e-300 else 1e-15, abs=0.0)
    assert result.reference_rms == pytest.approx(
        math.sqrt(26.0 / 3.0) * scale, rel=1e-3 if scale < 1e-300 else 1e-15, abs=0.0
    )


def test_a_difference_beyond_float64_keeps_its_relative_figures():
    result = compare(np.array([1.0, 1.7e308]), np.array([1.0, -1.7e308]))
    assert (result.max_abs, result.index, result.mean_abs) == (math.inf, (1,), 1.7e308)
    assert (result.rel, result.max_rel, result.cosine) == (2.0, 2.0, -1.0)


@pytest.mark.parametrize("size", [2047, 2048, 2049, 4096, 6000, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, (1 << 19) + 5])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_no_element_is_lost_at_the_boundaries_of_blocks_and_pieces(size, dtype):
    reference = (np.arange(size) % 100).astype(dtype)
    spots = sorted({0, 2047, 2048, 4095, 4096, (1 << 18) - 1, 1 << 18, size - 2, size - 1} & set(range(size)))
    for rank, spot in enumerate(spots):
        candidate = reference.copy()
        candidate[spot] = 200 if spot % 2 else 150
        result = compare(candidate, reference)
        distance = float(candidate[spot]) - float(reference[spot])
        assert (result.differing, result.index, result.max_abs) == (1, (spot,), distance), rank
        assert result.mean_abs == pytest.approx(distance / size, rel=1e-15, abs=0.0)
        assert result.rms == pytest.approx(distance / math.sqrt(size), rel=1e-15, abs=0.0)
    candidate = reference.copy()
    candidate[spots] += 1
    result = compare(candidate, reference)
    assert (result.differing, result.max_abs, result.index) == (len(spots), 1.0, (spots[0],))


@pytest.mark.parametrize("size", [2049, (1 << 18) + 3])
def test_non_finite_values_are_found_at_the_boundaries_of_blocks_and_pieces(size):
    reference = np.ones(size, np.float32)
    for spot in (0, 2047, 2048, size - 1):
        for value in (np.nan, np.inf, -np.inf):
            candidate = reference.copy()
            candidate[spot] = value
            result = compare(candidate, reference)
            assert (result.nonfinite_differing, result.nonfinite_index) == (1, (spot,))
            assert (result.pairs, result.max_abs, result.differing) == (size - 1, 0.0, 1)
            assert result.min_absolute_tolerance == result.min_relative_tolerance == math.inf
            assert compare(candidate, candidate.copy()).equal
    candidate = reference.copy()
    candidate[[3, 2047, 2048]] = np.inf
    result = compare(candidate, reference)
    assert (result.nonfinite_differing, result.nonfinite_index) == (3, (3,))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_over_a_million_elements_are_as_good_as_exact(dtype):
    generator = np.random.default_rng(0)
    size = 1_200_000
    # Sixty binary orders of magnitude, so that a plain running sum would lose the small ones.
    spread = 2.0 ** generator.integers(-30, 30, size)
    reference = (generator.standard_normal(size) * spread).astype(dtype)
    candidate = (reference * (1 + 1e-3 * generator.standard_normal(size))).astype(dtype)
    a, b = candidate.astype(np.float64), reference.astype(np.float64)
    result = compare(candidate, reference)
    assert result.mean_abs == pytest.approx(math.fsum(np.abs(a - b)) / size, rel=1e-15, abs=0.0)
    assert result.rms == pytest.approx(math.sqrt(math.fsum((a - b) ** 2) / size), rel=1e-15, abs=0.0)
    assert result.reference_rms == pytest.approx(math.sqrt(math.fsum(b * b) / size), rel=1e-15, abs=0.0)


def test_what_many_blocks_add_is_not_lost_beside_a_large_element():
    # Each block after the first adds 2^-54 to a sum of 1, which rounds to nothing 127 times over.
    size = 1 << 18
    candidate = np.full(size, 2.0**-65)
    candidate[0] = 1.0
    exact = (1.0 + (size - 1) * 2.0**-65) / size
    assert compare(candidate, np.zeros(size)).mean_abs == pytest.approx(exact, rel=2.0**-52, abs=0.0)


def test_the_number_of_threads_changes_no_bit():
    generator = np.random.default_rng(1)
    reference = generator.standard_normal(3 * pieces.PIECE + 17)
    candidate = reference + 1e-9 * generator.standard_normal(reference.size)
    results = [compare(candidate, reference, threads=threads) for threads in (1, 2, 3, 5)]
    assert results[0] == results[1] == results[2] == results[3]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_of_64_bits_are_told_apart_beyond_float64(dtype):
    bounds = np.iinfo(dtype)
    result = compare(np.array([bounds.max], dtype), np.array([bounds.min], dtype))
    assert (result.max_abs, result.differing) == (2.0**64, 1)
    near = compare(np.array([bounds.max - 1, bounds.max], dtype), np.array([bounds.max, bounds.max], dtype))
    assert (near.max_abs, near.differing, near.index) == (1.0, 1, (0,))


def test_facts_of_arrays_without_elements_and_without_axes():
    empty = compare(np.zeros((0, 3), np.float32), np.ones((0, 3), np.float32))
    assert (empty.size, empty.pairs, empty.max_abs, empty.index, empty.rel) == (0, 0, 0.0, None, 0.0)
    assert empty.equal
    scalar = compare(np.array(1.5, np.float32), np.array(1.0, np.float32))
    assert (scalar.size, scalar.index, scalar.values, scalar.max_abs) == (1, (), (1.5, 1.0), 0.5)


def test_zero_against_zero_and_against_something():
    zero, one = np.zeros(3), np.ones(3)
    assert (compare(zero, zero).rel, compare(zero, zero).max_rel, compare(zero, zero).cosine) == (0.0, 0.0, 1.0)
    assert (compare(one, zero).rel, compare(one, zero).max_rel, compare(one, zero).cosine) == (math.inf, math.inf, 0.0)
    assert (compare(zero, one).rel, compare(zero, one).max_rel, compare(zero, one).cosine) == (1.0, 1.0, 0.0)


def test_minus_zero_is_zero():
    result = compare(np.array([-0.0, 0.0]), np.array([0.0, -0.0]))
    assert result.equal
    assert (result.max_ulp, result.max_rel) == (0, 0.0)


def test_the_tolerances_printed_are_the_smallest_that_pass():
    generator = np.random.default_rng(2)
    reference = generator.standard_normal(1000)
    candidate = reference + 1e-6 * generator.standard_normal(1000)
    result = compare(candidate, reference)
    below = math.nextafter(result.min_absolute_tolerance, 0.0)
    assert np.allclose(candidate, reference, rtol=0.0, atol=result.min_absolute_tolerance)
    assert not np.allclose(candidate, reference, rtol=0.0, atol=below)
    assert np.allclose(candidate, reference, rtol=result.min_relative_tolerance * (1 + 2**-52), atol=0.0)
    assert not np.allclose(candidate, reference, rtol=result.min_relative_tolerance * (1 - 2**-50), atol=0.0)


def test_complex_numbers_are_pairs_of_floats():
    result = compare(np.array([1 + 2j, 3 + 4j], np.complex64), np.array([1 + 2j, 3 + 4.5j], np.complex64))
    assert (result.max_abs, result.index, result.values) == (0.5, (1, 1), (4.0, 4.5))


@pytest.mark.parametrize(
    ("candidate", "message"),
    [(np.array(["a"]), "cannot compare arrays of <U1"), (np.array([None]), "cannot compare arrays of object")],
)
def test_what_is_not_a_number_is_refused(candidate, message):
    with pytest.raises(TypeError, match=message):
        compare(candidate, candidate)


def test_shapes_are_never_broadcast():
    with pytest.raises(ValueError, match=r"shapes differ: \(1,\) against \(4,\)"):
        compare(np.ones(1), np.ones(4))
    with pytest.raises(ValueError, match=r"shapes differ: \(2, 3\) against \(3, 2\)"):
        compare(np.ones((2, 3)), np.ones((3, 2)))
