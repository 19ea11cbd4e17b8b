"""A tensor in a few numbers, so that one can be kept of every parameter after every update."""

import zlib

import numpy as np

WIDTH = 8
BLOCK = 1 << 19  # elements: 32 MB of signs
PREFIX = "trajectory/"  # of the rows of `train_align` that hold a parameter's sketches, (iterations, WIDTH)


def sketch(name: str, array: np.ndarray) -> np.ndarray:
    """`WIDTH` sums of the array's elements with random signs, (WIDTH,) float64; the signs depend on the name alone.

    Two arrays that differ have sketches that differ by as much, in the mean over signs (Johnson and Lindenstrauss 1984;
    signs: Achlioptas, "Database-friendly random projections", 2003): the rms of the difference of the sketches, divided
    by the root of the number of elements, estimates the rms of the difference of the arrays.
    """
    flat = array.reshape(-1)
    if flat.size <= BLOCK:
        total = _signs(name, flat.size) @ flat.astype(np.float64)
    else:  # a sign of its own for each would take more room than the array: the product of one's place and its block's
        inner, outer = _signs(name, BLOCK), _signs(f"{name}/blocks", -(-flat.size // BLOCK))
        total = np.zeros(WIDTH)
        for number in range(outer.shape[1]):
            block = flat[number * BLOCK : (number + 1) * BLOCK].astype(np.float64)
            total += outer[:, number] * (inner[:, : block.size] @ block)
    return total / np.sqrt(max(flat.size, 1))


def _signs(name: str, size: int) -> np.ndarray:
    key = name, size
    if key not in _known:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        _known[key] = rng.integers(0, 2, (WIDTH, size), np.int8).astype(np.float64) * 2 - 1
    return _known[key]


_known: dict[tuple[str, int], np.ndarray] = {}
