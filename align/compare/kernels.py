"""Compiled inner loops of the comparison: one pass over two flat pieces, everything widened before it is subtracted.

Importing this module imports numba (about half a second), so only `compiled.kernel` does, when arrays are first
compared. The machine code is kept on disk; where no folder can be written it is compiled anew in each process (about
two seconds for each pair of types that occurs).

Each `measure_*` returns one flat tuple in the order of `FIELDS`. Blocks of 2,048 elements are summed in vector
registers and joined by Neumaier's compensated sum, so the error of a sum does not grow with the length of the piece.
Maxima are taken over the *bits* of non-negative float64 numbers: their order is the numbers' order, integers vectorise
without a promise that no NaN occurs, and NaN and infinity show up as the greatest. Inner loops take slices and count
from 0: from another start numba guards every index against being negative, which halves the speed.
"""

import hashlib
from pathlib import Path

import numba
import numpy as np
from numba import njit, types
from numba.extending import overload

FIELDS = (
    "max_difference", "max_position", "max_relative", "max_candidate", "max_reference", "max_ulp", "differing", "pairs",
    "sum_difference", "square_difference", "square_candidate", "square_reference", "product",
    "candidate_nan", "reference_nan", "candidate_inf", "reference_inf", "nonfinite_differing", "nonfinite_position",
)  # fmt: skip

BLOCK = 2048
INFINITY_BITS = 0x7FF0000000000000
# Sums may be reordered and multiply-adds contracted; that there is no NaN or infinity is *not* promised, and quotients
# stay correctly rounded.
REORDER = {"reassoc", "contract", "nsz"}
# A folder for this very source: numba writes its index before the code it points to, so a process killed in between
# would leave a new index over old code.
STAMP = hashlib.sha256(Path(__file__).read_bytes() + numba.__version__.encode()).hexdigest()[:16]
CACHE = Path(numba.config.CACHE_DIR or Path(__file__).parent / "__pycache__") / f"kernels-{STAMP}"


def compiled(**options):
    """`numba.njit` without the GIL, kept on disk if any of numba's cache folders can be written."""

    def decorate(function):
        settings = {"nogil": True, "error_model": "numpy", **options}
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(CACHE)  # read while decorating, and only then
        try:
            return njit(cache=True, **settings)(function)
        except RuntimeError:  # numba: "cannot cache function: no locator available"
            return njit(**settings)(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate


def ulp_distance(x, y):
    """Distance of two floats of one type in representable numbers, as uint64; -0 and 0 are one number. 0 if mixed."""
    raise NotImplementedError("only called from compiled code")


@overload(ulp_distance, inline="always")
def _ulp_distance(x, y):
    if x == types.float32 and y == types.float32:

        def single(x, y):
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

        def double(x, y):
            i = np.float64(x).view(np.int64)
            j = np.float64(y).view(np.int64)
            s = i >> np.int64(63)
            t = j >> np.int64(63)
            p = ((i & np.int64(0x7FFFFFFFFFFFFFFF)) ^ s) - s
            q = ((j & np.int64(0x7FFFFFFFFFFFFFFF)) ^ t) - t
            return np.uint64(p) - np.uint64(q) if p > q else np.uint64(q) - np.uint64(p)  # up to 2^64: unsigned

        return double
    return lambda x, y: np.uint64(0)


@compiled()
def _add(total, rest, value):
    """Neumaier's step: the new total, and the rounding errors gathered so far."""
    new = total + value
    if abs(total) >= abs(value):
        rest += (total - new) + value
    else:
        rest += (value - new) + total
    return new, rest


@compiled(fastmath=REORDER)
def _block(a, b):
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
def _part(a, b, finite_a, finite_b):
    """Copy a block to `finite_a`, `finite_b` with 0, 0 in place of every pair that is not finite on both sides.

    Returns the counts of NaN and infinity on both sides, of finite pairs, of pairs that differ in kind or sign with the
    position of the first, and squares and maxima of the finite elements whose partner is not: they belong to their own
    side's norm.
    """
    nan_a = nan_b = inf_a = inf_b = pairs = differing = 0
    first = -1
    square_a = square_b = max_a = max_b = 0.0
    for i in range(a.size):
        x = np.float64(a[i])
        y = np.float64(b[i])
        nan_a += np.isnan(x)
        nan_b += np.isnan(y)
        inf_a += np.isinf(x)
        inf_b += np.isinf(y)
        if np.isfinite(x) and np.isfinite(y):
            pairs += 1
            finite_a[i] = a[i]
            finite_b[i] = b[i]
            continue
        finite_a[i] = 0.0
        finite_b[i] = 0.0
        if np.isfinite(x):
            square_a += x * x
            max_a = max(max_a, abs(x))
        if np.isfinite(y):
            square_b += y * y
            max_b = max(max_b, abs(y))
        if not (x == y or (np.isnan(x) and np.isnan(y))):
            differing += 1
            if first < 0:
                first = i
    return nan_a, nan_b, inf_a, inf_b, pairs, differing, first, square_a, square_b, max_a, max_b


@compiled()
def _first(a, b, bits):
    """Where |a - b| first has these bits."""
    for i in range(a.size):
        if np.float64(abs(np.float64(a[i]) - np.float64(b[i]))).view(np.int64) == bits:
            return i
    return -1


@compiled()
def measure_floats(a, b):
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
            square_a, rest_a = _add(square_a, rest_a, part[7])
            square_b, rest_b = _add(square_b, rest_b, part[8])
            max_a = max(max_a, np.float64(part[9]).view(np.int64))
            max_b = max(max_b, np.float64(part[10]).view(np.int64))
        if block[0] > max_d:
            max_d = block[0]
            position = low + _first(x, y, max_d)
        max_q = max(max_q, block[1])
        max_a = max(max_a, block[2])
        max_b = max(max_b, block[3])
        max_u = max(max_u, block[4])
        differing += block[5]
        sum_d, rest_d = _add(sum_d, rest_d, block[6])
        square_d, rest_dd = _add(square_d, rest_dd, block[7])
        square_a, rest_a = _add(square_a, rest_a, block[8])
        square_b, rest_b = _add(square_b, rest_b, block[9])
        product, rest_p = _add(product, rest_p, block[10])
    return (
        np.int64(max_d).view(np.float64), position, np.int64(max_q).view(np.float64),
        np.int64(max_a).view(np.float64), np.int64(max_b).view(np.float64), max_u, differing, pairs,
        sum_d + rest_d, square_d + rest_dd, square_a + rest_a, square_b + rest_b, product + rest_p,
        nan_a, nan_b, inf_a, inf_b, nonfinite, first,
    )  # fmt: skip


@compiled()
def measure_scaled(a, b, scale_a, scale_b, scale_d):
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
            square_a, rest_a = _add(square_a, rest_a, x * x)
        if finite_y:
            square_b, rest_b = _add(square_b, rest_b, y * y)
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
        sum_d, rest_d = _add(sum_d, rest_d, d)
        square_d, rest_dd = _add(square_d, rest_dd, d * d)
        product, rest_p = _add(product, rest_p, x * y)
    return (
        position, max_q,
        sum_d + rest_d, square_d + rest_dd, square_a + rest_a, square_b + rest_b, product + rest_p,
    )  # fmt: skip


@compiled(fastmath=REORDER)
def _integer_block(a, b):
    """Sums and maxima of one block of int64 or uint64 pairs; distances are exact uint64, widened for the sums."""
    max_d = np.uint64(0)
    max_q = np.int64(0)
    max_a = np.int64(0)
    max_b = np.int64(0)
    differing = np.int64(0)
    sum_d = square_d = square_a = square_b = product = 0.0
    for i in range(a.size):
        # Modulo 2^64 the difference of the greater and the smaller is right for both types, whatever their signs.
        u = np.uint64(a[i])
        v = np.uint64(b[i])
        distance = u - v if a[i] > b[i] else v - u
        max_d = max(max_d, distance)
        differing += np.int64(distance != np.uint64(0))
        x = np.float64(a[i])
        y = np.float64(b[i])
        d = np.float64(distance)
        q = d / abs(y) if d > 0.0 else 0.0
        max_q = max(max_q, np.float64(q).view(np.int64))
        max_a = max(max_a, np.float64(abs(x)).view(np.int64))
        max_b = max(max_b, np.float64(abs(y)).view(np.int64))
        sum_d += d
        square_d += d * d
        square_a += x * x
        square_b += y * y
        product += x * y
    return max_d, max_q, max_a, max_b, differing, sum_d, square_d, square_a, square_b, product


@compiled()
def _first_integer(a, b, distance):
    for i in range(a.size):
        u = np.uint64(a[i])
        v = np.uint64(b[i])
        if (u - v if a[i] > b[i] else v - u) == distance:
            return i
    return -1


@compiled()
def measure_integers(a, b):
    """`measure_floats` for two int64 or two uint64 pieces; `max_difference` is an exact integer."""
    max_d = np.uint64(0)
    max_q = np.int64(0)
    max_a = np.int64(0)
    max_b = np.int64(0)
    differing = np.int64(0)
    position = np.int64(-1)
    sum_d = square_d = square_a = square_b = product = 0.0
    rest_d = rest_dd = rest_a = rest_b = rest_p = 0.0
    for low in range(0, a.size, BLOCK):
        x = a[low : low + BLOCK]
        y = b[low : low + BLOCK]
        block = _integer_block(x, y)
        if block[0] > max_d:
            max_d = block[0]
            position = low + _first_integer(x, y, max_d)
        max_q = max(max_q, block[1])
        max_a = max(max_a, block[2])
        max_b = max(max_b, block[3])
        differing += block[4]
        sum_d, rest_d = _add(sum_d, rest_d, block[5])
        square_d, rest_dd = _add(square_d, rest_dd, block[6])
        square_a, rest_a = _add(square_a, rest_a, block[7])
        square_b, rest_b = _add(square_b, rest_b, block[8])
        product, rest_p = _add(product, rest_p, block[9])
    return (
        max_d, position, np.int64(max_q).view(np.float64),
        np.int64(max_a).view(np.float64), np.int64(max_b).view(np.float64), np.uint64(0), differing, a.size,
        sum_d + rest_d, square_d + rest_dd, square_a + rest_a, square_b + rest_b, product + rest_p,
        0, 0, 0, 0, 0, -1,
    )  # fmt: skip
