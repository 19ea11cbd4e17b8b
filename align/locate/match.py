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
            _Print(array.size, float(np.sqrt(np.mean(np.square(array)))), value.number)
            for value in trace.values
            if value.name in store and (array := store[value.name]).size and array.dtype.kind == "f"
        ]
        self._prints = sorted(prints, key=lambda p: (p.size, p.rms))
        self._keys = [(p.size, p.rms) for p in self._prints]

    def array(self, number: int) -> np.ndarray | None:
        name = self.trace.values[number].name
        return self.store[name] if name in self.store else None

    def __contains__(self, array: np.ndarray) -> bool:
        if not array.size or array.dtype.kind != "f":
            return True  # shapes, indices and masks are judged by what they do to numbers
        rms = float(np.sqrt(np.mean(np.square(array))))
        if not np.isfinite(rms):
            return False
        flat, ordered, elsewhere = array.reshape(-1), None, False
        for number in self._candidates(array.size, rms):
            other = self.store[self.trace.values[number].name]
            if _close(flat, other.reshape(-1), rms):
                return True
            ordered = np.sort(flat) if ordered is None else ordered
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


def _close(first: np.ndarray, second: np.ndarray, rms: float) -> bool:
    if rms == 0:
        return not second.any()
    return float(np.sqrt(np.mean(np.square(first - second)))) <= LIMIT * rms


def first_divergent(
    ours: Values, theirs: Values, failing: np.ndarray, modules: Collection[str] | None = None
) -> Operation | None:
    """The first operation, on the way to the failing array, whose result the other trace lacks though it has its inputs.

    `modules` restricts the way to operations that ran in these module calls. Operations beside the way are innocent:
    what they made differently came together again.
    """
    trace = ours.trace
    start = _producer(ours, failing, modules)
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


def _producer(values: Values, array: np.ndarray, modules: Collection[str] | None) -> Operation | None:
    """The last operation, in these modules, that made exactly this array."""
    for operation in reversed(values.trace.operations):
        if modules is not None and operation.module not in modules:
            continue
        for number in operation.outputs:
            made = values.array(number)
            if made is not None and made.shape == array.shape and np.array_equal(made, array):
                return operation
    return None
