"""A few numbers that stand for an array: enough to recognise it elsewhere to within rounding, whatever its size."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 1 << 18  # elements that are weighted at a time
STARTS = (0, 1013, 2027)  # of the three sequences of weights in the table
LARGE = 2.0**24  # integers up to which a difference of one shows in a projection


@dataclass(frozen=True)
class Fingerprint:
    """Of an array of numbers, in float64.

    `moments` (mean, mean cube, greatest, least) do not depend on the order of the elements; `projections` do, sums
    weighted by fixed pseudo-random numbers in -1 to 1, over the root of the size. `rms` is their scale. `digest` is of
    large integers, or of the places and signs of what is not finite; otherwise empty.
    """

    shape: tuple[int, ...]
    integer: bool
    rms: float
    moments: tuple[float, ...]
    projections: tuple[float, ...]
    digest: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def as_json(self) -> list[Any]:
        return [self.shape, self.integer, self.rms, self.moments, self.projections, self.digest]


def from_json(row: list[Any] | None) -> Fingerprint | None:
    """The fingerprint whose `as_json` went through JSON."""
    if row is None:
        return None
    shape, integer, rms, moments, projections, digest = row
    return Fingerprint(tuple(shape), integer, rms, tuple(moments), tuple(projections), digest)


def of_number(value: float) -> Fingerprint | None:
    """Of one finite number of Python; None where only `of_array` can tell."""
    if not math.isfinite(value) or abs(value) >= LARGE:
        return None
    number = float(value)
    projections = tuple(float(_WEIGHTS[start]) * number for start in STARTS)
    moments = number, number**3 / (number * number or 1.0), number, number
    return Fingerprint((), isinstance(value, int), abs(number), moments, projections)


def of_array(array: np.ndarray) -> Fingerprint | None:
    """Of a non-empty array of booleans, integers or real or complex numbers; None for anything else."""
    if array.dtype.kind not in "buifc" or not array.size:
        return None
    shape, integer = tuple(array.shape), array.dtype.kind in "bui"
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind == "c":
        flat = flat.astype(np.complex128).view(np.float64)
    values, digest = flat.astype(np.float64), ""
    greatest, least = float(values.max()), float(values.min())
    if not math.isfinite(greatest) or not math.isfinite(least):
        finite = np.isfinite(values)
        marks = np.where(finite, 0, np.where(np.isnan(values), 2, np.sign(values) * 3)).astype(np.int8)
        digest, values = _digest(marks), np.where(finite, values, 0.0)
        greatest, least = float(values.max()), float(values.min())
    scale = max(abs(greatest), abs(least)) or 1.0
    if integer and scale >= LARGE:
        digest = _digest(flat.astype(np.int64))
    values /= scale  # squares and cubes of what is very great or small stay numbers
    squares = values * values
    moments = float(values.mean()) * scale, float(squares @ values) / values.size * scale, greatest, least
    projections = tuple(p * scale / math.sqrt(values.size) for p in _projections(values))
    rms = math.sqrt(float(squares.mean())) * scale
    return Fingerprint(shape, integer, rms, moments, projections, digest)


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()


def table(size: int) -> np.ndarray:
    """Numbers in -1 to 1: splitmix64 (Steele, Lea and Flood, OOPSLA 2014) of the places, the same everywhere."""
    with np.errstate(over="ignore"):
        z = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


_WEIGHTS = table(BLOCK + STARTS[-1])


def _projections(values: np.ndarray) -> list[float]:
    """Each block has the same weights, times a factor of its own."""
    sums = [0.0] * len(STARTS)
    for number, begin in enumerate(range(0, values.size, BLOCK)):
        block = values[begin : begin + BLOCK]
        factor = 1.0 + float(_WEIGHTS[number % BLOCK]) if number else 1.0
        for index, start in enumerate(STARTS):
            sums[index] += factor * float(_WEIGHTS[start : start + block.size] @ block)
    return sums
