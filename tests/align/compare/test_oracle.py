"""The oracle itself, on cases worked out by hand: a wrong oracle would make every property test worthless."""

import math
from fractions import Fraction

import numpy as np

from align.compare.arrays import BFloat16
from tests.align.compare.oracle import answer, numbers, ordered, root


def test_figures_of_a_case_worked_by_hand():
    result = answer(np.array([1.0, 2.0, math.nan, -1.0]), np.array([1.0, 4.0, math.nan, math.inf]))
    assert (result.max_abs, result.position, result.mean_abs) == (2.0, 1, 1)
    assert (result.rms, result.rel) == (math.sqrt(2.0), 2.0 / math.sqrt(17.0))
    assert (result.max_rel, result.cosine) == (0.5, 9.0 / math.sqrt(6.0 * 17.0))
    assert (result.differing, result.pairs, result.nonfinite_differing, result.nonfinite_position) == (2, 2, 1, 3)
    assert (result.nan, result.inf) == ((1, 1), (0, 1))
    assert result.max_ulp == 1 << 52


def test_numbers_are_read_from_the_bytes_of_every_type():
    assert numbers(BFloat16(np.array([0x3F80, 0xC000, 0x0001], np.uint16))) == [1.0, -2.0, 2.0**-133]
    assert numbers(np.array([0.5, 65504.0], ">f2")) == [0.5, 65504.0]
    assert numbers(np.array([2**64 - 1], np.uint64)) == [2**64 - 1]
    assert numbers(np.array([True, False])) == [1, 0]
    assert numbers(np.arange(6, dtype=np.int16).reshape(2, 3).T) == [0, 3, 1, 4, 2, 5]


def test_ranks_and_roots():
    assert [ordered(x, "float32") for x in (0.0, -0.0, 2.0**-149, -(2.0**-149))] == [0, 0, 1, -1]
    assert root(Fraction(2)) == math.sqrt(2.0)
    assert root(Fraction(10) ** 400) == 1e200
    assert root(Fraction(1, 10**400)) == 1e-200
    assert root(Fraction(1, 2**2148)) == 2.0**-1074
