"""Another part of the right value: another token, row, or end of an axis."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import equal, varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence

RANK = 40


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    port, reference = evidence.port, evidence.reference
    if port is None or reference is None or port.dtype.kind != "f" or evidence.gradient:
        return
    if varied(port) and varied(reference):
        yield from _slices(evidence, port, reference)


def _slices(evidence: Evidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    for name, value in evidence.values.items():
        if value.size <= reference.size:
            continue
        theirs = next(windows(value, reference), None)
        ours = theirs and next(windows(value, port), None)
        if not theirs or not ours or theirs == ours:
            continue
        text = f"of {name} {value.shape} the port takes {_told(ours)}, the reference {_told(theirs)}"
        start, stop = theirs[1], theirs[1] + theirs[2]
        made = np.take(value, range(start, stop), theirs[0]).reshape(reference.shape)
        yield Hypothesis("wrong-slice", text, made=made, wanted=reference, change=f"take {_told(theirs)}")


Window = tuple[int, int, int]  # axis, first index, length


def _told(window: Window) -> str:
    axis, start, length = window
    return f"{start if length == 1 else f'{start}:{start + length}'} of axis {axis}"


def windows(value: np.ndarray, part: np.ndarray) -> Iterator[Window]:
    """Where along one axis a part of a value stands."""
    for axis, size in enumerate(value.shape):
        rest = value.size // size if size else 0
        if not rest or part.size % rest or part.size // rest >= size:
            continue
        length = part.size // rest
        shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
        if part.shape != shape and part.shape != tuple(n for k, n in enumerate(shape) if k != axis or length > 1):
            continue
        whole = part.reshape(shape)
        for start in range(size - length + 1):
            window = np.take(value, range(start, start + length), axis)
            if equal(window, whole):
                yield axis, start, length
