"""A cast to a type of fewer bits: the reference's tensor rounded so is the port's."""

import math
from collections.abc import Iterator

import numpy as np

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.locate.modules import own_error

RANK = 10
TYPES = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}  # and an ulp of each
MANY = 16  # numbers


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to the nearest of a type, ties to even, and widened to float64 again."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return array.astype(dtype).astype(np.float64)
    bits = array.astype(np.float32).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not evidence.pair:
        return
    port, reference = evidence.pair
    for dtype in TYPES:
        yield Hypothesis(
            "lower-precision",
            f"the port's value went through {dtype}, the reference's did not",
            made=rounded(reference, dtype),
            wanted=port,
            change=f"leave out the cast to {dtype}",
        )
    for dtype, ulp in reversed(TYPES.items()):
        if _is_of(port, dtype) and not _is_of(reference, dtype) and own_error(port, reference) <= ulp * _most(port):
            text = f"every number of the port's value is one of {dtype}, and off by no more than that type's rounding"
            yield Hypothesis("lower-precision", text, port, port, change=f"work it out without {dtype}", read=True)
            return


def _is_of(array: np.ndarray, dtype: str) -> bool:
    """Whether no number would be changed by that type: hardly by chance, if they are many."""
    return array.size >= MANY and np.array_equal(rounded(array, dtype), array)


def _most(array: np.ndarray) -> float:
    """Of a sum along the longest axis, how many roundings add up (pairwise: Higham, SIAM J. Sci. Comput. 14, 1993)."""
    return max(1.0, math.log2(max(array.shape, default=1)))
