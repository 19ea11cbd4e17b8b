"""A cast to a type of fewer bits: the reference's tensor rounded so is the port's."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence

RANK = 10
TYPES = ("float32", "float16", "bfloat16")


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
