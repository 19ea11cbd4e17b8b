"""Which values of one trace are values of the other, and which operation is the first that went its own way.

No name and no structure is used: a value is recognised by its elements. It counts as the same if it is equal element by
element in C order, whatever the shape, or if it holds the same elements in another order under another shape (another
layout). The same elements in another order under the *same* shape are a wrong order, and no match.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from align.record.store import Store
from align.record.trace import Operation, Trace

LIMIT = 2.0**-40  # relative, Frobenius: as in a replay
NEAR = 1e-9  # relative: fingerprints this far apart are still looked at, element by element


@dataclass(frozen=True)
class _Print:
    """What does not depend on the order of the elements."""

    size: int
    rms: float
    number: int


class Values:
    """The floating values of a trace, to be looked up by value."""

    def __init__(self, trace: Trace, store: Store) -> None:
        self.trace, self.store = trace, store
        prints = [
            _Print(array.size, _rms(array), value.number)
            for value in trace.values
            if (array := store.get(value.name)) is not None and array.size and array.dtype.kind == "f"
        ]
        self._prints = sorted(prints, key=lambda p: (p.size, p.rms))
        self._keys = [(p.size, p.rms) for p in self._prints]

    def array(self, number: int) -> np.ndarray | None:
        return self.store.get(self.trace.values[number].name)

    def last_result(self) -> np.ndarray | None:
        """What the last operation made: the result of the block."""
        for operation in reversed(self.trace.operations):
            for number in operation.outputs:
                if (array := self.array(number)) is not None:
                    return array
        return None

    def gradient(self, number: int) -> np.ndarray | None:
        """The gradient that reached a value, if one did."""
        return self.store.get(self.trace.values[number].gradient_name)

    def number_of(self, array: np.ndarray) -> int | None:
        """A value with these elements in this order, one that a gradient reached if there is any."""
        rms = _rms(array)
        same = [
            number
            for number in self._candidates(array.size, rms)
            if _close(array.reshape(-1), self.store[self.trace.values[number].name].reshape(-1), rms)
        ]
        reached = [number for number in same if self.gradient(number) is not None]
        return next(iter(reached or same), None)

    def __contains__(self, array: np.ndarray) -> bool:
        if not array.size or array.dtype.kind != "f":
            return True  # shapes, indices and masks are judged by what they do to numbers
        rms = _rms(array)
        if self.number_of(array) is not None:
            return True
        ordered, elsewhere = np.sort(array, axis=None), False
        for number in self._candidates(array.size, rms):
            other = self.store[self.trace.values[number].name]
            if _close(ordered, np.sort(other, axis=None), rms):
                if other.shape == array.shape:
                    return False
                elsewhere = True
        return elsewhere

    def _candidates(self, size: int, rms: float) -> Iterable[int]:
        slack = NEAR * rms
        index = bisect_left(self._keys, (size, rms - slack))
        while index < len(self._prints) and self._keys[index] <= (size, rms + slack):
            yield self._prints[index].number
            index += 1


def _rms(array: np.ndarray) -> float:
    """Of the finite elements: NaN has no place in an order, and a mask's infinities say nothing of the others' size."""
    if not array.size:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        rms = float(np.sqrt(np.mean(np.square(array))))
        if not np.isfinite(rms) and not (finite := np.isfinite(array)).all():
            return _rms(array[finite])
    return min(rms, float(np.finfo(np.float64).max))


def _close(first: np.ndarray, second: np.ndarray, rms: float) -> bool:
    """Whether two flat arrays are the same to `LIMIT`; what is not finite in one must be the same in the other."""
    if first.dtype.kind == "b" or second.dtype.kind == "b":
        return bool(np.array_equal(first, second))
    finite = np.isfinite(first) & np.isfinite(second)
    if not finite.all():
        if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
            return False
        first, second = first[finite], second[finite]
    if rms == 0 or not first.size:
        return not first.any() and not second.any()
    return float(np.sqrt(np.mean(np.square(first - second)))) <= LIMIT * rms


def first_divergent(
    ours: Values, theirs: Values, failing: np.ndarray, modules: Collection[str] | None = None
) -> Operation | None:
    """The first operation on the way to the failing array whose result the other trace lacks, though it has its inputs.

    `modules` restricts the way to operations that ran in these module calls. Operations beside the way are innocent:
    what they made differently came together again.
    """
    first = first_unmatched(ours, theirs, failing, modules)
    return first and _with_the_wrong_input(ours, theirs, first, modules)


def first_unmatched(
    ours: Values, theirs: Values, failing: np.ndarray, modules: Collection[str] | None = None
) -> Operation | None:
    """The same, but where it reads the wrong one of the other trace's values, still the operation that reads it."""
    trace = ours.trace
    start = made_by(ours, failing, modules)
    if start is None:
        return None
    known: dict[int, bool] = {}

    def matched(number: int) -> bool:
        if number not in known:
            array = ours.array(number)
            known[number] = array is None or array in theirs
        return known[number]

    suspects, seen, todo = [], set(), [start]
    while todo:
        operation = todo.pop()
        if operation.index in seen:
            continue
        seen.add(operation.index)
        upstream = []
        for number in operation.inputs:
            producer = trace.values[number].operation
            if producer is not None and not matched(number):
                maker = trace.operations[producer]
                if modules is None or maker.module in modules:
                    upstream.append(maker)
        if upstream:
            todo += upstream
        else:
            suspects.append(operation)
    return min(suspects, key=lambda operation: operation.index, default=None)


def _with_the_wrong_input(
    ours: Values, theirs: Values, operation: Operation, modules: Collection[str] | None
) -> Operation:
    """The operation itself; or, if it does what its counterpart does but to another value, the maker of that value.

    A swapped or left-out value has no element that the other side lacks: only its use shows that it is the wrong one.
    """
    inputs = [(number, array) for number in operation.inputs if (array := ours.array(number)) is not None]
    best: tuple[int, list[int]] = (-1, [])
    for other in theirs.trace.operations:
        if other.name != operation.name or (modules is not None and other.module not in modules):
            continue
        read = [array for number in other.inputs if (array := theirs.array(number)) is not None]
        differing = [n for n, mine in inputs if not any(_reordered(mine, expected) for expected in read)]
        if not differing:
            return operation  # it reads the same, perhaps in another order
        made = [array for number in other.outputs if (array := theirs.array(number)) is not None]
        if all(array in ours for array in made):
            continue  # it has its own counterpart, which is right
        best = max(best, (len(read) - len(differing), differing))
    for number in best[1]:
        producer = ours.trace.values[number].operation
        if producer is not None:
            maker = ours.trace.operations[producer]
            if modules is None or maker.module in modules:
                return maker
    return operation


def _reordered(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the elements are the same, in another order only under another shape."""
    if _same(first, second):
        return True
    if first.size != second.size:
        return False
    return first.shape != second.shape and _same(np.sort(first, axis=None), np.sort(second, axis=None))


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.size == second.size and _close(first.reshape(-1), second.reshape(-1), _rms(second))


def made_by(values: Values, array: np.ndarray, modules: Collection[str] | None) -> Operation | None:
    """The last operation, in these modules, that made exactly this array; or else one that is as good as the same.

    What a fused kernel made is not made to the last bit by the operations that it is traced as.
    """
    near = None
    for operation in reversed(values.trace.operations):
        if modules is not None and operation.module not in modules:
            continue
        for number in operation.outputs:
            made = values.array(number)
            if made is None or made.shape != array.shape:
                continue
            if np.array_equal(made, array, equal_nan=made.dtype.kind == "f"):
                return operation
            if near is None and array.dtype.kind == made.dtype.kind == "f" and _same(made, array):
                near = operation
    return near
