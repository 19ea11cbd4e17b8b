import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.compare.ulp import ulp


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@given(data=st.data())
def test_it_is_numpys_spacing(dtype, data):
    limit = float(np.finfo(dtype).max)
    value = data.draw(st.floats(0.0, limit, width=8 * np.dtype(dtype).itemsize))
    assert ulp(dtype, value) == ulp(dtype, -value)
    if value < limit:  # beyond the greatest number there is no next one for numpy to measure
        assert ulp(dtype, value) == float(np.spacing(np.array(value, dtype)))


def test_bfloat16_has_eight_bits_of_significand():
    assert [ulp("bfloat16", value) for value in (1.0, 1.99, 2.0, 0.0)] == [2.0**-7, 2.0**-7, 2.0**-6, 2.0**-133]


def test_other_types_have_no_ulp():
    with pytest.raises(KeyError):
        ulp("int32", 1.0)
