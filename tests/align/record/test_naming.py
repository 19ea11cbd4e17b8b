"""Tensors of one side under the other's names: one for one, several joined, one split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.errors import UsageError
from align.record.naming import Naming, parts

FUSED = Naming({"in_proj": "q + k + v", "out": "o"}, {"in_proj": (6, 2), "out": (2,)})
SPLIT = Naming({"q + k": "qk", "out": "o"}, {"q": (2, 3), "k": (4, 3), "out": (2,)})


@given(st.integers(0, 1000))
def test_what_goes_there_comes_back(seed):
    rng = np.random.default_rng(seed)
    for naming in (FUSED, SPLIT):
        held = {name: rng.standard_normal(shape) for name, shape in naming.shapes.items()}
        back = naming.to_reference(naming.to_own(held))
        assert back.keys() == held.keys()
        for name in held:
            np.testing.assert_array_equal(back[name], held[name])


def test_the_parts_of_a_fused_tensor_lie_along_the_first_axis():
    array = np.arange(12.0).reshape(6, 2)
    own = FUSED.to_own({"in_proj": array, "out": np.ones(2)})
    assert set(own) == {"q", "k", "v", "o"}
    np.testing.assert_array_equal(own["k"], array[2:4])


def test_a_part_without_a_gradient_counts_as_zeros_and_none_where_all_have_none():
    joined = FUSED.to_reference({"q": np.ones((2, 2)), "k": None, "v": np.ones((2, 2)), "o": None})
    np.testing.assert_array_equal(joined["in_proj"], np.repeat([1.0, 0.0, 1.0], 2)[:, None] * np.ones(2))
    assert joined["out"] is None
    assert FUSED.to_reference({"q": None, "k": None, "v": None})["in_proj"] is None
    assert SPLIT.to_reference({"qk": None}) == {"q": None, "k": None}


def test_names_that_nobody_paired_stay():
    assert FUSED.to_reference({"o": np.ones(2), "extra": None}).keys() == {"out", "extra"}
    assert FUSED.reference == {"q": "in_proj", "k": "in_proj", "v": "in_proj", "o": "out"}
    assert parts("a + b") == ["a", "b"]


def test_rows_that_make_no_equal_parts_are_an_error():
    naming = Naming({"a": "x + y"}, {"a": (5,)})
    with pytest.raises(UsageError, match="a has 5 rows, which are not 2 equal parts: x \\+ y"):
        naming.to_own({"a": np.ones(5)})
