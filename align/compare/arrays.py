"""What the comparison may be given, and how a stretch of it is read.

Any numpy array of numbers, and bfloat16, which numpy does not have.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

# Bytes read of a file mapping after which its pages are let go.
RELEASE = 16 << 20
# Bytes read since then, by the id of the mapping. An id that comes back makes it somewhat wrong, and pages are let go
# early: no harm. Threads take turns: on a busy machine one that wrote back an old sum let the pages pile up.
_read: dict[int, int] = {}
_turn = Lock()


@dataclass(frozen=True, slots=True)
class BFloat16:
    """A bfloat16 array by its bits: `bits` is uint16 of any shape."""

    bits: np.ndarray

    def __post_init__(self) -> None:
        if self.bits.dtype != np.uint16:
            raise TypeError(f"bfloat16 comes as uint16 bits, not as {self.bits.dtype}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bits.shape

    @property
    def size(self) -> int:
        return self.bits.size


Array = np.ndarray | BFloat16


def dtype_name(array: Array) -> str:
    """`float32`, `bfloat16`, ...: the name to compare and to print. Byte order is storage and not part of it."""
    return "bfloat16" if isinstance(array, BFloat16) else array.dtype.name


@cache
def describe(dtype: np.dtype) -> tuple[str, str, bool]:
    """Name, kind (`Operand`'s, or `complex`, `bfloat16`), and whether elements can be used as they lie.

    Raises TypeError for what is not a number of at most 64 bits (128 for complex).
    """
    kind = {"f": "float", "c": "complex", "i": "integer", "b": "integer", "u": "unsigned"}.get(dtype.kind)
    if dtype.name == "bfloat16":  # ml_dtypes
        kind = "bfloat16"
    if kind is None or dtype.itemsize > (16 if kind == "complex" else 8):
        raise TypeError(f"cannot compare arrays of {dtype}: only numbers of at most 64 bits")
    return dtype.name, kind, dtype.isnative


class Operand:
    """One side of a comparison, read in C order by flat position.

    `kind` is `float`, `integer` (signed, and bool by its value 0 or 1) or `unsigned`. Complex numbers are read as pairs
    of floats: `shape` then has a last axis of 2. Raises TypeError for an array that does not hold such numbers.
    """

    __slots__ = ("_bfloat16", "_flat", "array", "dtype", "kind", "shape", "size")

    def __init__(self, source: Array):
        array = source.bits if isinstance(source, BFloat16) else source
        if type(array) is not np.ndarray:
            array = np.asarray(array)  # a memory map, whose slices would be slow
        self.dtype, self.kind, native = describe(array.dtype)
        self._bfloat16 = self.kind == "bfloat16" or isinstance(source, BFloat16)
        if self._bfloat16:
            self.dtype, self.kind = "bfloat16", "float"
            array = array.view(np.uint16)
        elif self.kind == "complex":
            array = np.stack((array.real, array.imag), axis=-1)
            self.dtype, self.kind = array.dtype.name, "float"
        self.array = array
        self.shape = array.shape
        self.size = array.size
        flags = array.flags
        self._flat = array.reshape(-1) if native and flags.c_contiguous and flags.aligned else None

    def bits(self, start: int, stop: int) -> np.ndarray:
        """The elements from `start` to `stop` as stored: flat, contiguous, aligned, native; a view if possible."""
        if self._flat is not None:
            return self._flat[start:stop]
        native = self.array.dtype.newbyteorder("=")
        piece = np.empty(stop - start, native)
        # Any: numpy's annotations take `iterrange` for read-only and know nothing of parts.
        iterator: Any = np.nditer(
            self.array, ["external_loop", "buffered", "ranged"], op_dtypes=[native], order="C", casting="equiv"
        )
        iterator.iterrange = (start, stop)
        done = 0
        for part in iterator:
            piece[done : done + part.size] = part
            done += part.size
        return piece

    def floats(self, start: int, stop: int) -> np.ndarray:
        """The same as float32 (from half, bfloat16 and float32: exact) or float64 (from all others)."""
        piece = self.bits(start, stop)
        if self._bfloat16:
            return (piece.astype(np.uint32) << np.uint32(16)).view(np.float32)
        if self.dtype == "float16":
            return piece.astype(np.float32)
        return piece if self.kind == "float" else piece.astype(np.float64)

    def integers(self, start: int, stop: int, wide: type) -> np.ndarray:
        """The same as `wide` (int64 or uint64), exact for the kinds that fit it."""
        return self.bits(start, stop).astype(wide, copy=False)

    def item(self, position: int) -> float | int:
        """One element by flat position, as a Python number (bool as 0 or 1)."""
        if self._bfloat16:
            return self.floats(position, position + 1).item()
        if self._flat is not None:
            return self._flat.item(position) + 0
        return self.bits(position, position + 1).item() + 0

    def release(self, count: int) -> None:
        """Say that `count` elements have been read, to let go of memory pages now and then if they map a file.

        A process must not grow by the size of its inputs, be they one large tensor or many small ones. Read-only
        mappings alone, because a private writable one would lose what was written to it. All of the mapping is let go,
        since one access may have mapped megabytes around it; whoever reads there again gets it from the page cache.
        """
        base: Any = self.array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, memoryview):
            base = base.obj
        if not isinstance(base, mmap.mmap):
            return
        with _turn:
            read = _read.get(id(base), 0) + count * self.array.itemsize
            if read >= RELEASE and hasattr(mmap, "MADV_DONTNEED") and memoryview(base).readonly:
                base.madvise(mmap.MADV_DONTNEED)
                read = 0
            _read[id(base)] = read


class Rolled:
    """A side whose element i is the source's i + stride, around the end; only the piece being read is ever copied."""

    def __init__(self, source: Operand, stride: int):
        self.source = source
        self.stride = stride
        self.shape, self.size, self.kind, self.dtype = source.shape, source.size, source.kind, source.dtype

    def _read(self, method: Callable[..., np.ndarray], start: int, stop: int, *more: Any) -> np.ndarray:
        start += self.stride
        stop += self.stride
        if stop <= self.size:
            return method(start, stop, *more)
        if start >= self.size:
            return method(start - self.size, stop - self.size, *more)
        return np.concatenate([method(start, self.size, *more), method(0, stop - self.size, *more)])

    def bits(self, start: int, stop: int) -> np.ndarray:
        return self._read(self.source.bits, start, stop)

    def floats(self, start: int, stop: int) -> np.ndarray:
        return self._read(self.source.floats, start, stop)

    def integers(self, start: int, stop: int, wide: type) -> np.ndarray:
        return self._read(self.source.integers, start, stop, wide)

    def item(self, position: int) -> float | int:
        return self.source.item((position + self.stride) % self.size)

    def release(self, count: int) -> None:
        """Nothing: the other side of the comparison is the source itself and releases it."""
