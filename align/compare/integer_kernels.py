"""`kernels` for integers: distances are exact, and only then widened to float64 for the sums."""

import numpy as np

from align.compare.jit import BLOCK, REORDER, add, compiled


@compiled(fastmath=REORDER)
def _integer_block(a: np.ndarray, b: np.ndarray) -> tuple:
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
def _first_integer(a: np.ndarray, b: np.ndarray, distance: int) -> int:
    for i in range(a.size):
        u = np.uint64(a[i])
        v = np.uint64(b[i])
        if (u - v if a[i] > b[i] else v - u) == distance:
            return i
    return -1


@compiled()
def measure_integers(a: np.ndarray, b: np.ndarray) -> tuple:
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
        sum_d, rest_d = add(sum_d, rest_d, block[5])
        square_d, rest_dd = add(square_d, rest_dd, block[6])
        square_a, rest_a = add(square_a, rest_a, block[7])
        square_b, rest_b = add(square_b, rest_b, block[8])
        product, rest_p = add(product, rest_p, block[9])
    return (
        max_d, position, np.int64(max_q).view(np.float64),
        np.int64(max_a).view(np.float64), np.int64(max_b).view(np.float64), np.uint64(0), differing, a.size,
        sum_d + rest_d, square_d + rest_dd, square_a + rest_a, square_b + rest_b, product + rest_p,
        0, 0, 0, 0, 0, -1,
    )  # fmt: skip
