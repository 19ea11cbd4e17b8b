"""One pass over two operands, piece by piece; the pieces' facts are joined so that threads cannot change the result.

A fact sheet is a tuple in the order of `kernels.FIELDS`, positions counted from the start of the operands, followed by
five binary shifts: the sums of the sheet are the true ones times 2^shift. Shifts are 0 unless squares would overflow
or underflow (1e200, 1e-200).
"""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from align.compare.compiled import kernel

PIECE = 1 << 18  # elements read at a time: 2 MiB of float64 a side, which stays in the second-level cache
# Magnitudes in this range are squared and multiplied as they are: 2^480 squared and summed 2^60 times stays under
# 2^1024, and what underflows beside a greatest element of 2^-400 is less than 2^-200 of the sum.
SAFE = (2.0**-400, 2.0**480)
SHIFT = 600  # binary places by which a piece outside that range is moved into it
UNSHIFTED = (0, 0, 0, 0, 0)
EMPTY = (0.0, -1, 0.0, 0.0, 0.0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, -1, *UNSHIFTED)


class Side(Protocol):
    """What is read of one side of a comparison: `arrays.Operand`, or one seen through `roll.Rolled`."""

    @property
    def dtype(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    def bits(self, start: int, stop: int) -> np.ndarray: ...
    def floats(self, start: int, stop: int) -> np.ndarray: ...
    def integers(self, start: int, stop: int, wide: type) -> np.ndarray: ...
    def item(self, position: int) -> float | int: ...
    def release(self, count: int) -> None: ...


def measure(a: Side, b: Side, threads: int | None = None) -> tuple:
    """The fact sheet of two sides of one size."""
    if a.size == 0:
        return EMPTY
    piece = _piece_measure(a, b)
    starts = range(0, a.size, PIECE)
    sheets: list[tuple] = []
    for sheet in _in_order(lambda start: piece(start, min(a.size, start + PIECE)), starts, threads):
        sheets.append(sheet)
        a.release(min(a.size, PIECE))
        b.release(min(a.size, PIECE))
    if len(sheets) == 1:
        return sheets[0]
    return _joined(sheets)


def _in_order(call: Callable[[int], tuple], starts: range, threads: int | None) -> Iterator[tuple]:
    """The results in order of `starts`; threads (the kernels hold no GIL) only where there is more than one."""
    if len(starts) == 1:
        yield call(0)
        return
    with ThreadPoolExecutor(threads or min(4, len(os.sched_getaffinity(0)))) as pool:
        yield from pool.map(call, starts)


def _piece_measure(a: Side, b: Side) -> Callable[[int, int], tuple]:
    """The function (start, stop) -> fact sheet of that stretch, by the kinds of the two sides."""
    unsigned = a.kind == b.kind == "unsigned"
    if unsigned or (a.kind != "float" != b.kind and "uint64" not in (a.dtype, b.dtype)):
        wide = np.uint64 if unsigned else np.int64
        compare = kernel("measure_integers", wide.__name__, wide.__name__)

        def integers(start: int, stop: int) -> tuple:
            facts = compare(_read_only(a.integers(start, stop, wide)), _read_only(b.integers(start, stop, wide)))
            return _placed(facts, start) + UNSHIFTED

        return integers
    half = a.dtype == b.dtype == "float16"
    compare = kernel("measure_floats", _float_type(a), _float_type(b))

    def floats(start: int, stop: int) -> tuple:
        x = _read_only(a.floats(start, stop))
        y = _read_only(b.floats(start, stop))
        facts = compare(x, y)
        if half:
            facts = (*facts[:5], _half_ulps(a.bits(start, stop), b.bits(start, stop)), *facts[6:])
        shifts = _shift(facts[3]), _shift(facts[4]), _shift(facts[0])
        if any(shifts):
            return _placed(_scaled(x, y, facts, *shifts), start)
        return _placed(facts, start) + UNSHIFTED

    return floats


def _float_type(side: Side) -> str:
    """What `floats` of that side returns."""
    return "float32" if side.dtype in ("float32", "float16", "bfloat16") else "float64"


def _placed(facts: tuple, start: int) -> tuple:
    """The facts with positions counted from the start of the operands."""
    if start == 0:
        return facts
    greatest, nonfinite = (facts[at] + start if facts[at] >= 0 else -1 for at in (1, 18))
    return (facts[0], greatest, *facts[2:18], nonfinite, *facts[19:])


def _read_only(piece: np.ndarray) -> np.ndarray:
    """A read-only view, so that numba compiles one variant for writable and read-only inputs alike."""
    if piece.flags.writeable:
        piece = piece.view()
        piece.flags.writeable = False
    return piece


def _shift(greatest: float) -> int:
    if greatest == 0.0 or SAFE[0] <= greatest <= SAFE[1]:
        return 0
    return SHIFT if greatest < SAFE[0] else -SHIFT


def _scaled(x: np.ndarray, y: np.ndarray, facts: tuple, shift_a: int, shift_b: int, shift_d: int) -> tuple:
    """The sheet with sums taken anew from values times 2^shift, so that no square overflows or underflows."""
    x = _read_only(x.astype(np.float64, copy=False))
    y = _read_only(y.astype(np.float64, copy=False))
    scales = 2.0**shift_a, 2.0**shift_b, 2.0**shift_d
    position, quotient, *sums = kernel("measure_scaled", "float64", "float64")(x, y, *scales)
    if facts[0] == math.inf:  # the difference itself overflowed; scaled, it tells which is the greatest
        facts = (facts[0], position, *facts[2:])
    shifts = shift_d, 2 * shift_d, 2 * shift_a, 2 * shift_b, shift_a + shift_b
    return (*facts[:2], quotient, *facts[3:8], *sums, *facts[13:], *shifts)


def _half_ulps(x: np.ndarray, y: np.ndarray) -> int:
    """Greatest distance in representable half-precision numbers over the finite pairs."""
    ordered = []
    for bits in (x.view(np.int16).astype(np.int32), y.view(np.int16).astype(np.int32)):
        ordered.append(np.where(bits < 0, -(bits & 0x7FFF), bits))
    finite = np.isfinite(x) & np.isfinite(y)
    return int(np.max(np.abs(ordered[0] - ordered[1]), initial=0, where=finite))


def _joined(sheets: list[tuple]) -> tuple:
    """One sheet from those of successive pieces; sums are exactly rounded sums of the pieces' sums."""
    columns = list(zip(*sheets, strict=True))
    greatest = max(columns[0])
    position = next(at for value, at in zip(columns[0], columns[1], strict=True) if value == greatest)
    sums, shifts = zip(*map(_sum, columns[8:13], columns[19:24]), strict=True)
    nonfinite = next((at for at in columns[18] if at >= 0), -1)
    return (
        greatest, position, *map(max, columns[2:6]), *map(sum, columns[6:8]),
        *sums, *map(sum, columns[13:18]), nonfinite, *shifts,
    )  # fmt: skip


def _sum(values: tuple[float, ...], shifts: tuple[int, ...]) -> tuple[float, int]:
    """The exactly rounded sum of value 2^-shift, and the shift it is given with."""
    if not any(shifts):
        return math.fsum(values), 0
    parts = [(value, shift) for value, shift in zip(values, shifts, strict=True) if value]
    common = min((shift for _, shift in parts), default=0)
    return math.fsum(math.ldexp(value, common - shift) for value, shift in parts), common
