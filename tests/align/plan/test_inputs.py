"""Inputs that show more than a plain draw: tokens at the edges and one twice, pixels that never tie."""

from dataclasses import replace

import numpy as np
import pytest

from align.case import Input
from align.cases import find
from align.plan import inputs, photographs
from align.plan.inputs import SPECIAL, _integers
from align.record.store import Store, StoreWriter


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


def test_no_two_neighbouring_pixels_tie(tmp_path):
    """Black corners of a photograph would be one tie for every maximum of a pooling window."""
    spec = Input("0", (3, 3, 33, 41))
    case = replace(find("pit_probe"), loss=None, inputs=(spec,))
    with StoreWriter(tmp_path, "plan") as store:
        inputs.add(store, case, photographs.read(photographs.shipped()))
    values = Store(tmp_path, "plan")["input/0"]
    assert values.dtype == np.float32
    for axis in (2, 3):
        assert np.abs(np.diff(values, axis=axis)).min() > 0
