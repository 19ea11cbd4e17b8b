"""The reference's own rounding error, measured: runs with everything one ulp off, against the float64 run."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from align.record.store import Store

PIECE = 1 << 20  # elements that are compared at a time: they stay in the processor's cache
RUNS = 3  # perturbed runs in the working type; the float64 run is perturbed once


def one_ulp_off(array: np.ndarray, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """The array in `dtype` (bfloat16 as float32 values), every element but zeros moved one ulp, up or down by chance.

    Zeros stay: they are padding, masks and fresh biases, and one ulp of zero is a subnormal that nothing computes with.
    So do infinities.
    """
    up = rng.integers(0, 2, array.shape, np.int8).astype(bool)
    if dtype == "bfloat16":
        bits = (array.astype(np.float32).view(np.uint32) + 0x8000) >> 16
        moved = bits + np.where(up, 1, -1)
        moved = np.where(bits & 0x7FFF, moved, bits)  # what is zero in bfloat16 stays zero
        return (moved.astype(np.uint32) << 16).view(np.float32)
    values = array.astype(dtype)
    # Numbers of one sign, read as integers, have the order of their sizes: much faster than `np.nextafter`.
    bits = values.view(f"i{values.itemsize}")
    step = 2 * (up ^ np.signbit(values)).astype(np.int8) - 1
    step *= np.isfinite(values) & (values != 0)
    return (bits + step).view(values.dtype)


class NoiseMeter:
    """A sink that keeps no tensor, only how far each is from the truth: `errors[name]` is (rms, maximum)."""

    def __init__(self, truth: Store) -> None:
        self._truth = truth
        self.errors: dict[str, tuple[float, float]] = {}

    def add(
        self,
        name: str,
        array: np.ndarray,
        kind: str,
        *,
        headline: bool = False,
        facts: Mapping[str, Any] | None = None,
        unchanged: Callable[[], bool] | None = None,
    ) -> None:
        entry = self._truth.entries.get(name)
        if entry is None or not entry.stored or entry.shape != array.shape or array.dtype.kind != "f" or not array.size:
            return
        count, squares, largest = 0, 0.0, 0.0
        given, truth = array.reshape(-1), self._truth[name].reshape(-1)
        for begin in range(0, given.size, PIECE):
            with np.errstate(invalid="ignore"):  # infinities of a mask
                error = given[begin : begin + PIECE].astype(np.float64)
                error -= truth[begin : begin + PIECE]
            np.abs(error, out=error)
            finite = np.isfinite(error)
            if not finite.all():
                error = error[finite]
            if error.size:
                count += error.size
                largest = max(largest, float(error.max()))
                squares += float(np.mean(np.square(error, out=error))) * error.size
        if count:
            self.errors[name] = (float(np.sqrt(squares / count)), largest)

    def alias(self, name: str, existing: str, kind: str) -> None:
        if existing in self.errors:
            self.errors[name] = self.errors[existing]
