"""How a port arranges the values that a reference drops from: other places along an axis, or axes in another order.

A port may keep its class token last, or its batch second, and be right. Its masks then have to lie where its values do,
so each mask is laid by the values that it is applied to: slice by slice, along every axis.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

MOST = 1024  # slices of an axis that are told apart; a longer one is taken as it stands
FIRM = 1e-3  # of the spread of an axis's slices: so near do equal slices come, rounding and float32 included
ROUNDED = 1e-5  # of the greatest of them: so near do slices come that are all equal, and in any order right


@dataclass(frozen=True)
class Slices:
    """An array by its slices: for each axis (size, 3) float64, no part of which depends on the order of other axes."""

    axes: tuple[np.ndarray, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    def as_json(self) -> list[list[list[float]]]:
        return [[[float(f"{number:.9g}") for number in row] for row in axis] for axis in self.axes]

    @classmethod
    def from_json(cls, axes: Sequence[Sequence[Sequence[float]]]) -> "Slices":
        return cls(tuple(np.asarray(axis, np.float64).reshape(-1, 3) for axis in axes))


def slices(array: np.ndarray, shape: Sequence[int]) -> Slices | None:
    """Of the values, (...) of any real type, that a mask of this shape is laid on; None where it does not fit.

    Moments: mean, root of the mean square and of the mean cube (of absolute values) of every slice.
    """
    fits = array.ndim == len(shape) and all(size in (1, of) for size, of in zip(shape, array.shape, strict=True))
    if not fits or not array.size or not array.ndim:
        return None
    axes = [np.zeros((size, 3)) for size in shape]
    square = np.square(array)
    for index, values in enumerate((array, square, square * np.abs(array))):
        for axis, means in enumerate(_means(values)):
            if 1 < shape[axis] <= MOST:
                axes[axis][:, index] = means
    for moments in axes:
        moments[:, 1], moments[:, 2] = np.sqrt(moments[:, 1]), np.cbrt(moments[:, 2])
    return Slices(tuple(axes)) if all(np.isfinite(axis).all() for axis in axes) else None


def _means(values: np.ndarray) -> list[np.ndarray]:
    """The mean of every slice, axis by axis; most of it from what one pass over the last axis leaves."""
    inner = values.mean(-1, dtype=np.float64)
    others = [tuple(other for other in range(inner.ndim) if other != axis) for axis in range(inner.ndim)]
    return [*map(inner.mean, others), values.reshape(-1, values.shape[-1]).mean(0, dtype=np.float64)]


@dataclass(frozen=True)
class Arrangement:
    """Turns an array of the reference's shape into the port's: its axes in this order, then these places of each."""

    axes: tuple[int, ...]
    places: tuple[np.ndarray, ...]

    def of(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array.transpose(self.axes)[np.ix_(*self.places)])


def arrangement(port: Slices, reference: Slices) -> Arrangement | None:
    """How the port has arranged the reference's values; None where it has not, or where nobody can tell.

    What lies as the reference's does is never arranged, however else it could be read.
    """
    if port.shape == reference.shape and all(map(_same, port.axes, reference.axes)):
        return None
    for axes in _orders(port.shape, reference.shape):
        places = [_places(own, reference.axes[axis]) for own, axis in zip(port.axes, axes, strict=True)]
        if all(found is not None for found in places):
            return Arrangement(axes, tuple(found for found in places if found is not None))
    return None


def _orders(port: tuple[int, ...], reference: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of the reference's axes that have the port's sizes, the one as they stand first."""
    if len(port) == len(reference):
        for axes in permutations(range(len(reference))):
            if tuple(reference[axis] for axis in axes) == port:
                yield axes


def _same(port: np.ndarray, reference: np.ndarray) -> bool:
    return bool(np.abs(port - reference).max(initial=0.0) <= _near(reference))


def _near(axis: np.ndarray) -> float:
    return FIRM * float(np.ptp(axis, axis=0).max(initial=0.0)) + ROUNDED * float(np.abs(axis).max(initial=0.0))


def _places(port: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """Of each of the port's slices, which of the reference's it is; None unless it is one of them, and each is once."""
    if _same(port, reference):
        return np.arange(len(port))
    distances = np.abs(port[:, None] - reference[None]).max(-1)
    nearest = distances.argmin(1)
    if len(set(nearest.tolist())) < len(nearest):
        return None
    return nearest if bool((distances.min(1) <= _near(reference)).all()) else None
