"""What must agree before a number is weighed: presence, dtype, shape, NaN and infinities; then whether values do.

In that order. No broadcast, no transpose, no cast: (1,) is not (), float32 is not float64. The first check that fails
is named with both sides.
"""

from dataclasses import dataclass

from align.compare.arrays import Array, dtype_name
from align.compare.statistics import Difference, compare

CHECKS = ("presence", "dtype", "shape", "nonfinite", "values")


@dataclass(frozen=True, slots=True)
class Failure:
    """The first check that two sides fail; `candidate` and `reference` are what stood against each other, in words."""

    check: str  # one of CHECKS
    candidate: str
    reference: str
    index: tuple[int, ...] | None = None  # where, for nonfinite (first) and values (greatest difference)
    count: int = 0  # positions that fail, for nonfinite and values

    def __str__(self) -> str:
        text = f"{self.check}: {self.candidate} against {self.reference}"
        if self.index is not None:
            text += f" at {self.index}"
        if self.count > 1:
            text += f", {self.count} positions differ"
        return text


@dataclass(frozen=True, slots=True)
class Strict:
    """The first failure, or None, and the statistics if both sides are there and of one shape."""

    failure: Failure | None
    difference: Difference | None

    @property
    def comparable(self) -> bool:
        """Whether at most finite values differ: what is left is a question of size."""
        return self.failure is None or self.failure.check == "values"


def check(candidate: Array | None, reference: Array | None) -> Strict:
    """All checks on two arrays, None for one that is absent. Raises TypeError for arrays that do not hold numbers."""
    failure = check_form(candidate, reference)
    if candidate is None or reference is None or candidate.shape != reference.shape:
        return Strict(failure, None)
    difference = compare(candidate, reference)
    return Strict(failure or check_values(difference), difference)


def check_form(candidate: Array | None, reference: Array | None) -> Failure | None:
    """Presence, dtype and shape; looks at no element."""
    if candidate is None or reference is None:
        if candidate is reference:
            raise ValueError("neither side is there: no row to check")
        return Failure("presence", _describe(candidate), _describe(reference))
    ours, theirs = dtype_name(candidate), dtype_name(reference)
    if ours != theirs:
        return Failure("dtype", ours, theirs)
    if candidate.shape != reference.shape:
        return Failure("shape", str(candidate.shape), str(reference.shape))
    return None


def check_values(difference: Difference) -> Failure | None:
    """NaN and infinity positions and signs, then equality of values."""
    if difference.nonfinite_values is not None:
        ours, theirs = map(repr, difference.nonfinite_values)
        return Failure("nonfinite", ours, theirs, difference.nonfinite_index, difference.nonfinite_differing)
    if difference.values is not None:
        ours, theirs = map(repr, difference.values)
        return Failure("values", ours, theirs, difference.index, difference.differing)
    return None


def _describe(array: Array | None) -> str:
    return "absent" if array is None else f"{dtype_name(array)} {array.shape}"
