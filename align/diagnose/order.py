"""In which order the elements of one array stand in another: nested loops, or a permutation along one axis."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np

from align.diagnose.arrays import equal

LEVELS = 10  # of nested loops: more is no order a program makes
MOST = 1 << 22  # elements that are sorted


@dataclass(frozen=True)
class Loops:
    """Element `i` of the one is element `start + sum(k_j * strides[j])` of the other; outermost loop first."""

    start: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    def indices(self) -> np.ndarray:
        found = np.full(self.sizes, self.start)
        for axis, (size, stride) in enumerate(zip(self.sizes, self.strides, strict=True)):
            found = found + (np.arange(size) * stride).reshape([-1 if k == axis else 1 for k in range(len(self.sizes))])
        return found.reshape(-1)

    @property
    def digits(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """(sizes of the axes as the other has them, the order in which they are read); None if one runs backwards."""
        axes = sorted(range(len(self.sizes)), key=lambda axis: -self.strides[axis])
        if self.start or any(stride <= 0 for stride in self.strides):
            return None
        return tuple(self.sizes[axis] for axis in axes), tuple(axes.index(k) for k in range(len(axes)))


def nested(port: np.ndarray, reference: np.ndarray) -> Loops | None:
    """The loops by which the port's elements are the reference's; None if there are none, or if too many are equal."""
    if port.size != reference.size or not 1 < port.size <= MOST:
        return None
    ours, theirs = port.reshape(-1), reference.reshape(-1)
    first, second = np.argsort(ours, kind="stable"), np.argsort(theirs, kind="stable")
    if not equal(ours[first], theirs[second]):
        return None
    source = np.empty(ours.size, np.int64)
    source[first] = second
    loops = _decomposed(source)
    if loops is None:
        return None
    indices = loops.indices()
    if indices.min() < 0 or indices.max() >= theirs.size or not equal(theirs[indices], ours):
        return None
    return loops


def _decomposed(source: np.ndarray) -> Loops | None:
    sizes: list[int] = []
    strides: list[int] = []
    rest = source
    while rest.size > 1:
        if len(sizes) == LEVELS:
            return None
        steps = np.diff(rest)
        stride = int(steps[0])
        other = np.flatnonzero(steps != stride)
        size = int(other[0]) + 1 if other.size else rest.size
        while rest.size % size:  # the next loop happens to begin in step
            size -= 1
        if size == 1:
            return None
        sizes.insert(0, size)
        strides.insert(0, stride)
        rest = rest[::size]
    return Loops(int(source[0]), tuple(sizes), tuple(strides))


def along_axes(port: np.ndarray, reference: np.ndarray, count: int) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """(axes, permutation): the port is the reference's slices along these axes, seen as one, in that order."""
    if port.shape != reference.shape or port.ndim <= count:
        return
    for axes in combinations(range(port.ndim), count):
        size = prod(port.shape[axis] for axis in axes)
        if size < 2 or min(port.shape[axis] for axis in axes) < 2:
            continue
        ours, theirs = (np.moveaxis(array, axes, range(count)).reshape(size, -1) for array in (port, reference))
        weights = np.cos(np.arange(1.0, ours.shape[1] + 1) ** 1.5)  # any that tell slices apart
        first, second = (np.argsort(rows @ weights, kind="stable") for rows in (ours, theirs))
        order = np.empty(size, np.int64)
        order[first] = second
        if not np.array_equal(order, np.arange(size)) and equal(theirs[order], ours):
            yield axes, order


def described(order: np.ndarray) -> str:
    """`reversed`, `rolled by 1`, `interleaved, 2 x 4`, or `in another order`."""
    size = order.size
    if np.array_equal(order, np.arange(size)[::-1]):
        return "reversed"
    for shift in range(1, size):
        if np.array_equal(order, np.roll(np.arange(size), shift)):
            return f"rolled by {shift if 2 * shift <= size else shift - size}"
    loops = _decomposed(order)
    if loops and loops.digits and len(loops.sizes) > 1:
        return f"interleaved, {' x '.join(map(str, loops.digits[0]))} read by the order {loops.digits[1]}"
    if size <= 8:
        return f"in the order {tuple(map(int, order))}"
    return "in another order"
