"""The unit in the last place of a floating type at a value, from the type's format alone."""

import math

# Significand bits with the hidden one, and exponent of the smallest normal number (IEEE 754-2008, table 3.5; bfloat16
# is the upper half of float32).
FORMATS = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}


def ulp(dtype: str, value: float) -> float:
    """The distance from |value| to the next greater number of that type; at 0, the smallest subnormal.

    `dtype` is a name as `arrays.dtype_name` gives it; raises KeyError for one that is not floating.
    """
    precision, smallest = FORMATS[dtype]
    exponent = math.frexp(value)[1] - 1 if value else smallest
    return math.ldexp(1.0, max(exponent, smallest) - precision + 1)
