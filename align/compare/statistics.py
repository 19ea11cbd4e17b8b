"""The facts about two arrays of one shape: how far apart, where, in which unit. Nothing here decides or prints.

One streaming pass, so that the extra memory does not depend on the size. Half, bfloat16 and float32 are widened to
float64 before they are subtracted; integers are subtracted exactly. Sums run over finite elements only; NaN and
infinity are counted apart. Dtypes are for `strict` to check.
"""

import math
from dataclasses import dataclass

from align.compare.arrays import Array, Operand, Rolled
from align.compare.pieces import Side, measure


@dataclass(frozen=True, slots=True)
class Difference:
    """How `candidate` (the port) differs from `reference`; all lengths in the arrays' own unit, float64.

    `pairs` are the positions where both sides are finite; `max_abs`, `mean_abs`, `rms`, `max_rel` and `max_ulp` range
    over them. Norm and maximum of one side range over its own finite elements. Two facts in one are (candidate,
    reference).
    """

    size: int
    pairs: int
    differing: int  # positions with different values; NaN equals NaN, -0 equals 0
    max_abs: float  # infinite if the difference itself exceeds float64
    index: tuple[int, ...] | None  # of the greatest difference, first in C order; None if no finite pair differs
    values: tuple[float, float] | None  # both values there
    mean_abs: float
    rms: float  # root of the mean square of the difference
    rel: float  # ||candidate - reference|| / ||reference|| (Frobenius); 0/0 = 0, x/0 = inf
    max_rel: float  # greatest |candidate - reference| / |reference| of one element; 0/0 = 0, x/0 = inf
    cosine: float  # 1 if both are zero, 0 if one is
    max_ulp: int | None  # greatest distance in representable numbers; None unless both are of one float type
    candidate_rms: float
    candidate_max: float
    reference_rms: float
    reference_max: float
    nan: tuple[int, int]
    inf: tuple[int, int]
    nonfinite_differing: int  # positions where one side is NaN, inf or -inf and the other is not the same
    nonfinite_index: tuple[int, ...] | None  # the first of them
    nonfinite_values: tuple[float, float] | None

    @property
    def equal(self) -> bool:
        """Every element has the same value (NaN where NaN is, -0 or 0 where 0 is)."""
        return self.differing == 0

    @property
    def nonfinite_equal(self) -> bool:
        """NaN and infinities stand in the same positions with the same signs."""
        return self.nonfinite_differing == 0

    @property
    def min_absolute_tolerance(self) -> float:
        """The smallest `atol` with |candidate - reference| <= atol everywhere; infinite if no tolerance helps."""
        return self.max_abs if self.nonfinite_equal else math.inf

    @property
    def min_relative_tolerance(self) -> float:
        """The smallest `rtol` with |candidate - reference| <= rtol |reference| everywhere, to rounding; or infinite."""
        return self.max_rel if self.nonfinite_equal else math.inf


def compare(candidate: Array, reference: Array, *, threads: int | None = None) -> Difference:
    """The `Difference` of two arrays of one shape.

    They are numpy arrays, possibly memory-mapped, of any numbers of at most 64 bits, or `arrays.BFloat16`. Different
    dtypes are compared too: integers among themselves exactly, other mixtures after widening both to float64 (which
    rounds integers beyond 2^53; a signed integer against uint64 as well). Complex numbers count as pairs of floats, and
    an index then has one more axis, of 2.

    `threads` bounds the worker threads (default: the processors this process may use, at most 4); the result does not
    depend on it. Raises ValueError for different shapes and TypeError for what is not a number.
    """
    a = Operand(candidate)
    b = Operand(reference)
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} against {b.shape}")
    return difference_of(a, b, threads)


def self_roll_difference(reference: Array, *, threads: int | None = None) -> Difference | None:
    """The `Difference` of the reference moved along its flat order (as candidate) against the reference itself.

    That is what a wrong answer of the right scale looks like: a row that passes it as well can see nothing. It is moved
    by one row and one column (length of the last axis + 1), or, if that maps a periodic one on itself, by one element.
    None where nothing can be told: fewer than two elements, or all the same.
    """
    b = Operand(reference)
    if b.size < 2:
        return None
    for stride in (b.shape[-1] + 1, 1):
        if stride % b.size:
            difference = difference_of(Rolled(b, stride % b.size), b, threads)
            if not difference.equal:
                return difference
    return None


def difference_of(a: Side, b: Side, threads: int | None = None) -> Difference:
    """`compare` for what has been opened already."""
    (
        greatest, position, quotient, greatest_a, greatest_b, ulps, differing, pairs,
        sum_d, square_d, square_a, square_b, product, nan_a, nan_b, inf_a, inf_b, nonfinite, nonfinite_position,
        shift_d, shift_dd, shift_a, shift_b, shift_p,
    ) = measure(a, b, threads)  # fmt: skip
    norm_d, norm_a, norm_b = math.sqrt(square_d), math.sqrt(square_a), math.sqrt(square_b)
    if norm_b:
        rel = _ldexp(norm_d / norm_b, (shift_b - shift_dd) // 2)
    else:
        rel = math.inf if norm_d else 0.0
    if norm_a and norm_b:
        cosine = max(-1.0, min(1.0, _ldexp(product / norm_a / norm_b, (shift_a + shift_b) // 2 - shift_p)))
    else:
        cosine = 0.0 if norm_a or norm_b else 1.0
    if a.dtype != b.dtype or a.kind != "float":
        ulps = None
    elif a.dtype == "bfloat16":
        ulps >>= 16  # widened, one bfloat16 step is 2^16 float32 steps
    return Difference(
        size=a.size,
        pairs=pairs,
        differing=differing,
        max_abs=float(greatest),
        index=_index(position, a.shape),
        values=_values(position, a, b),
        mean_abs=_ldexp(sum_d / pairs, -shift_d) if pairs else 0.0,
        rms=_rms(norm_d, pairs, shift_dd),
        rel=rel,
        max_rel=quotient,
        cosine=cosine,
        max_ulp=ulps,
        candidate_rms=_rms(norm_a, a.size - nan_a - inf_a, shift_a),
        candidate_max=greatest_a,
        reference_rms=_rms(norm_b, b.size - nan_b - inf_b, shift_b),
        reference_max=greatest_b,
        nan=(nan_a, nan_b),
        inf=(inf_a, inf_b),
        nonfinite_differing=nonfinite,
        nonfinite_index=_index(nonfinite_position, a.shape),
        nonfinite_values=_values(nonfinite_position, a, b),
    )


def _rms(norm: float, count: int, shift: int) -> float:
    """The rms of `count` elements from the root of the sum of their squares times 2^shift."""
    return _ldexp(norm / math.sqrt(count), -shift // 2) if count else 0.0


def _ldexp(value: float, exponent: int) -> float:
    """value 2^exponent, infinite where it overflows."""
    if exponent == 0:
        return value
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf


def _values(position: int, a: Side, b: Side) -> tuple[float, float] | None:
    return (a.item(position), b.item(position)) if position >= 0 else None


def _index(position: int, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if position < 0:
        return None
    index = []
    for length in reversed(shape):
        position, along = divmod(position, length)
        index.append(along)
    return tuple(reversed(index))
