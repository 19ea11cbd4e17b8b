"""Compiled inner loops of the comparison: one pass over two flat pieces, everything widened before it is subtracted.

Each `measure_*` returns one flat tuple in the order of `FIELDS`. Blocks are summed in vector registers and joined by
Neumaier's compensated sum, so the error of a sum does not grow with the length of the piece. Maxima are taken over the
*bits* of non-negative float64 numbers: their order is the numbers' order, integers vectorise without a promise that no
NaN occurs, and NaN and infinity show up as the greatest. Inner loops take slices and count from 0: from another start
numba guards every index against being negative, which halves the speed.
"""

from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import overload

from align.compare.jit import BLOCK, REORDER, add, compiled

FIELDS = (
    "max_difference", "max_position", "max_relative", "max_candidate", "max_reference", "max_ulp", "differing", "pairs",
    "sum_difference", "square_difference", "square_candidate", "square_reference", "product",
    "candidate_nan", "reference_nan", "candidate_inf", "reference_inf", "nonfinite_differing", "nonfinite_position",
)  # fmt: skip
INFINITY_BITS = 0x7FF0000000000000


def ulp_distance(x: float, y: float) -> np.uint64:
    """Distance of two floats of one type in representable numbers, as uint64; -0 and 0 are one number. 0 if mixed."""
    raise NotImplementedError("only called from compiled code")


# Not strict: the annotations are numba types out here and numbers inside.
@overload(ulp_distance, inline="always", strict=False)
def _ulp_distance(x: types.Type, y: types.Type) -> Callable:
    if x == types.float32 and y == types.float32:

        def single(x: float, y: float) -> np.uint64:
            i = np.int64(np.float32(x).view(np.int32))
            j = np.int64(np.float32(y).view(np.int32))
            # Sign and magnitude to two's complement: (m ^ s) - s is m for s = 0 and -m for s = -1.
            s = i >> np.int64(63)
            t = j >> np.int64(63)
            p = ((i & np.int64(0x7FFFFFFF)) ^ s) - s
            q = ((j & np.int64(0x7FFFFFFF)) ^ t) - t
            return np.uint64(abs(p - q))

        return single
    if x == types.float64 and y == types.float64:

        def double(x: float, y: float) -> np.uint64:
            i = np.float64(x).view(np.int64)
            j = np.float64(y).view(np.int64)
            s = i >> np.int64(63)
            t = j >> np.int64(63)
            p = ((i & np.int64(0x7FFFFFFFFFFFFFFF)) ^ s) - s
            q = ((j & np.int64(0x7FFFFFFFFFFFFFFF)) ^ t) - t
            return np.uint64(p) - np.uint64(q) if p > q else np.uint64(q) - np.uint64(p)  # up to 2^64: unsigned

        return double
    return lambda x, y: np.uint64(0)


@compiled(fastmath=REORDER)
def _block(a: np.ndarray, b: np.ndarray) -> tuple:
    """Sums and maxima (as bits) of one block as if all were finite; the caller sees by the bits whether that held."""
    max_d = np.int64(0)
    max_q = np.int64(0)
    max_a = np.int64(0)
    max_b = np.int64(0)
    max_u = np.uint64(0)
    differing = np.int64(0)
    sum_d = 0.0
    square_d = 0.0
    square_a = 0.0
    square_b = 0.0
    product = 0.0
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        d = abs(x - y)
        ax = abs(x)
        ay = abs(y)
        q = d / ay if d > 0.0 else 0.0
        max_d = max(max_d, np.float64(d).view(np.int64))
        max_q = max(max_q, np.float64(q).view(np.int64))
        max_a = max(max_a, np.float64(ax).view(np.int64))
        max_b = max(max_b, np.float64(ay).view(np.int64))
        max_u = max(max_u, ulp_distance(a[i], b[i]))
        differing += np.int64(x != y)
        sum_d += d
        square_d += d * d
        square_a += x * x
        square_b += y * y
        product += x * y
    return max_d, max_q, max_a, max_b, max_u, differing, sum_d, square_d, square_a, square_b, product


@compiled()
def _first_nonfinite(a: np.ndarray, b: np.ndarray) -> int:
    """Where NaN or infinity first stands against something else."""
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        if not (np.isfinite(x) and np.isfinite(y)) and not (x == y or (x != x and y != y)):
            return i
    return -1


@compiled(fastmath=REORDER)
def _part(a: np.ndarray, b: np.ndarray, finite_a: np.ndarray, finite_b: np.ndarray) -> tuple:
    """Copy a block to `finite_a`, `finite_b` with 0, 0 in place of every pair that is not finite on both sides.

    Returns the counts of NaN and infinity on both sides, of finite pairs, of pairs that differ in kind or sign with the
    position of the first, and squares and maxima of the finite elements whose partner is not: they belong to their own
    side's norm.
    """
    nan_a = nan_b = inf_a = inf_b = pairs = differing = np.int64(0)
    square_a = square_b = 0.0
    max_a = max_b = np.int64(0)
    infinity = np.int64(INFINITY_BITS)
    for i in range(a.size):  # without branches: behind a mask of -inf, every block may come here
        x = np.float64(a[i])
        y = np.float64(b[i])
        bits_x = np.float64(abs(x)).view(np.int64)
        bits_y = np.float64(abs(y)).view(np.int64)
        finite_x = np.int64(bits_x < infinity)
        finite_y = np.int64(bits_y < infinity)
        pair = finite_x & finite_y
        finite_a[i] = a[i] if pair else 0.0
        finite_b[i] = b[i] if pair else 0.0
        lone_x = abs(x) if finite_x > pair else 0.0
        lone_y = abs(y) if finite_y > pair else 0.0
        square_a += lone_x * lone_x
        square_b += lone_y * lone_y
        max_a = max(max_a, np.float64(lone_x).view(np.int64))
        max_b = max(max_b, np.float64(lone_y).view(np.int64))
        nan_x = np.int64(bits_x > infinity)
        nan_y = np.int64(bits_y > infinity)
        nan_a += nan_x
        nan_b += nan_y
        inf_a += np.int64(bits_x == infinity)
        inf_b += np.int64(bits_y == infinity)
        pairs += pair
        differing += np.int64(1) - (pair | np.int64(x == y) | (nan_x & nan_y))
    first = _first_nonfinite(a, b) if differing else -1
    return nan_a, nan_b, inf_a, inf_b, pairs, differing, first, square_a, square_b, max_a, max_b


@compiled()
def _first(a: np.ndarray, b: np.ndarray, bits: int) -> int:
    """Where |a - b| first has these bits."""
    for i in range(a.size):
        if np.float64(abs(np.float64(a[i]) - np.float64(b[i]))).view(np.int64) == bits:
            return i
    return -1


@compiled()
def measure_floats(a: np.ndarray, b: np.ndarray) -> tuple:
    """Facts of one piece: `a`, `b` flat, equally long, float32 or float64 each.

    Squares are taken as they are: where a side or a difference is outside the range in which that is safe,
    `measure_scaled` must follow.
    """
    max_d = np.int64(0)
    max_q = np.int64(0)
    max_a = np.int64(0)
    max_b = np.int64(0)
    max_u = np.uint64(0)
    differing = np.int64(0)
    pairs = np.int64(0)
    position = np.int64(-1)
    nan_a = nan_b = inf_a = inf_b = nonfinite = np.int64(0)
    first = np.int64(-1)
    sum_d = square_d = square_a = square_b = product = 0.0
    rest_d = rest_dd = rest_a = rest_b = rest_p = 0.0
    for low in range(0, a.size, BLOCK):
        x = a[low : low + BLOCK]
        y = b[low : low + BLOCK]
        block = _block(x, y)
        if block[2] < INFINITY_BITS and block[3] < INFINITY_BITS:
            pairs += x.size
        else:
            finite_x = np.empty(x.size, a.dtype)
            finite_y = np.empty(x.size, b.dtype)
            part = _part(x, y, finite_x, finite_y)
            block = _block(finite_x, finite_y)
            nan_a += part[0]
            nan_b += part[1]
            inf_a += part[2]
            inf_b += part[3]
            pairs += part[4]
            differing += part[5]
            nonfinite += part[5]
            if first < 0 <= part[6]:
                first = low + part[6]
            square_a, rest_a = add(square_a, rest_a, part[7])
            square_b, rest_b = add(square_b, rest_b, part[8])
            max_a = max(max_a, part[9])
            max_b = max(max_b, part[10])
        if block[0] > max_d:
            max_d = block[0]
            position = low + _first(x, y, max_d)
        max_q = max(max_q, block[1])
        max_a = max(max_a, block[2])
        max_b = max(max_b, block[3])
        max_u = max(max_u, block[4])
        differing += block[5]
        sum_d, rest_d = add(sum_d, rest_d, block[6])
        square_d, rest_dd = add(square_d, rest_dd, block[7])
        square_a, rest_a = add(square_a, rest_a, block[8])
        square_b, rest_b = add(square_b, rest_b, block[9])
        product, rest_p = add(product, rest_p, block[10])
    return (
        np.int64(max_d).view(np.float64), position, np.int64(max_q).view(np.float64),
        np.int64(max_a).view(np.float64), np.int64(max_b).view(np.float64), max_u, differing, pairs,
        sum_d + rest_d, square_d + rest_dd, square_a + rest_a, square_b + rest_b, product + rest_p,
        nan_a, nan_b, inf_a, inf_b, nonfinite, first,
    )  # fmt: skip


@compiled()
def measure_scaled(a: np.ndarray, b: np.ndarray, scale_a: float, scale_b: float, scale_d: float) -> tuple:
    """Of two float64 pieces: where the greatest difference is, the greatest quotient, and the sums of scaled values.

    The scales are powers of two that bring the greatest of each into the range whose squares are exact enough. A
    difference that overflows (1e308 against -1e308) is a number again after scaling. Returns (position, max_relative,
    five sums as in `FIELDS`).
    """
    max_d = -1.0
    position = -1
    max_q = 0.0
    sum_d = square_d = square_a = square_b = product = 0.0
    rest_d = rest_dd = rest_a = rest_b = rest_p = 0.0
    for i in range(a.size):
        x = a[i] * scale_a
        y = b[i] * scale_b
        finite_x = np.isfinite(a[i])
        finite_y = np.isfinite(b[i])
        if finite_x:
            square_a, rest_a = add(square_a, rest_a, x * x)
        if finite_y:
            square_b, rest_b = add(square_b, rest_b, y * y)
        if not (finite_x and finite_y):
            continue
        d = abs(a[i] - b[i])
        if np.isfinite(d):
            q = d / abs(b[i]) if d > 0.0 else 0.0
            d *= scale_d
        else:
            d = abs(a[i] * scale_d - b[i] * scale_d)
            q = d / abs(b[i] * scale_d)
        max_q = max(max_q, q)
        if d > max_d:
            max_d = d
            position = i
        sum_d, rest_d = add(sum_d, rest_d, d)
        square_d, rest_dd = add(square_d, rest_dd, d * d)
        product, rest_p = add(product, rest_p, x * y)
    return (
        position, max_q,
        sum_d + rest_d, square_d + rest_dd, square_a + rest_a, square_b + rest_b, product + rest_p,
    )  # fmt: skip
