"""Tokens that a random draw of a large vocabulary would never have."""

import numpy as np
import pytest

from align.case import Input
from align.plan.inputs import SPECIAL, _integers


@pytest.mark.parametrize("seed", range(20))
def test_the_edges_are_there_and_one_value_twice(seed):
    values = _integers(Input("ids", (2, 8), "integers", dtype="int64", high=30000), np.random.default_rng(seed))
    assert values.min() == 0
    assert values.max() == 29999
    assert len(np.unique(values)) < values.size


def test_a_few_values_are_left_to_the_draw():
    shape = (len(SPECIAL) - 1,)
    values = _integers(Input("ids", shape, "integers", dtype="int64", high=5), np.random.default_rng(0))
    assert values.shape == shape
    assert set(values) <= set(range(5))
