"""Comparing many arrays with one, quickly: a few elements decide first."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from align.locate.modules import LIMIT

MANY = 1024  # elements to which a factor is fitted first
SAMPLED = 64  # elements looked at before all are
LOOSE = 1e-6  # relative to the scale, for one sampled element


def equal(first: np.ndarray, second: np.ndarray, limit: float = LIMIT) -> bool:
    """Whether two arrays of one shape are equal but for noise (relative Frobenius)."""
    if first.shape != second.shape:
        return False
    if first.size > 4 * SAMPLED:
        step = first.size // SAMPLED
        one, other = first.reshape(-1)[::step], second.reshape(-1)[::step]
        if not _close(one, other, LOOSE):
            return False
    return _close(first, second, limit)


def _close(first: np.ndarray, second: np.ndarray, limit: float) -> bool:
    difference = float(np.linalg.norm((first - second).reshape(-1)))
    return difference <= limit * float(np.linalg.norm(second.reshape(-1)))


def sampled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A few elements, spread evenly, of the array as it broadcasts to a shape."""
    size = int(np.prod(shape))
    if not shape:
        return array.reshape(1)
    return np.broadcast_to(array, shape)[np.unravel_index(np.arange(0, size, max(1, size // MANY)), shape)]


def varied(array: np.ndarray) -> bool:
    """Whether the elements differ enough that a match says something: not all one number."""
    return array.size > 1 and float(np.ptp(array)) > LOOSE * float(np.abs(array).max())


def broadcasts(values: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Those that fit a shape: equal, as they broadcast, or, of one axis, along any axis of that length."""
    for name, array in values.items():
        if array.shape == shape:
            yield name, array
        elif array.ndim == 1 and array.size > 1:
            for axis in range(len(shape)):
                if shape[axis] == array.size:
                    yield name, array.reshape([-1 if k == axis else 1 for k in range(len(shape))])
        elif array.size > 1 and array.ndim <= len(shape) and _fits(array.shape, shape):
            yield name, array


def _fits(small: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    pairs: Iterable[tuple[int, int]] = zip(reversed(small), reversed(shape), strict=False)
    return all(own in (1, whole) for own, whole in pairs)
