"""The unit of every judgement: the reference's own rounding error, row by row, measured and never guessed.

noise: the greatest error of the reference's plain and perturbed runs in the working type against its float64 run, for
the root mean square and for the maximum apart (a root mean square hides one outlier in a million).
noise64: what the same rounding would be in float64: the greatest of noise x 2^-29 (the ratio of the two types' ulps),
the float64 run's own error when perturbed, and one float64 ulp.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from align.compare.ulp import ulp

SMALL = 64  # elements: below, a row's own few errors are a poor estimate, and it shares those of its kind and step
DIGITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}


@dataclass(frozen=True)
class Noise:
    """Absolute rounding error of one row: root mean square and maximum."""

    rms: float
    maximum: float

    def joined(self, other: "Noise") -> "Noise":
        return Noise(max(self.rms, other.rms), max(self.maximum, other.maximum))

    def times(self, factor: float) -> "Noise":
        return Noise(self.rms * factor, self.maximum * factor)


@dataclass(frozen=True)
class Measured:
    """What was measured of one row: its size and scale, and its noise in the working type and in float64.

    `cancelled`: rounding has eaten more than half of its digits. What is left of it, a gradient that is zero but for
    rounding, say, has no relative noise that others could share.
    """

    kind: str
    size: int
    scale_rms: float
    scale_max: float
    working: Noise
    twin: Noise
    cancelled: bool = False

    @property
    def pools(self) -> bool:
        """Whether it is small enough to need the others' errors."""
        return 0 < self.size < SMALL and self.scale_rms > 0


def floor(dtype: str, scale_rms: float, scale_max: float) -> Noise:
    """One ulp of the row's scale: no result is nearer to the truth than that, but by luck."""
    return Noise(ulp(dtype, scale_rms), ulp(dtype, scale_max))


def measure(
    kind: str,
    dtype: str,
    size: int,
    scale: tuple[float, float],
    plain: Noise,
    runs: Mapping[str, Iterable[tuple[float, float]]],
) -> Measured:
    """Noise of one row from the plain run's error and the perturbed runs' (rms, maximum) by dtype."""
    working = floor(dtype, *scale).joined(plain)
    for error in runs.get(dtype, ()):
        working = working.joined(Noise(*error))
    twin = floor("float64", *scale).joined(working.times(2.0 ** (DIGITS[dtype] - DIGITS["float64"])))
    for error in runs.get("float64", ()):
        twin = twin.joined(Noise(*error))
    cancelled = working.rms > scale[0] * 2.0 ** (-DIGITS[dtype] / 2)
    return Measured(kind, size, *scale, working, twin, cancelled)


def pooled(rows: Mapping[str, Measured]) -> dict[str, Measured]:
    """Each row's noise; rows under 64 elements are given at least what the small rows of their kind have together.

    Errors are pooled relative to each row's scale: the root mean square over all pooled elements, the greatest maximum.
    """
    pools: dict[str, list[Measured]] = {}
    for row in rows.values():
        if row.pools and not row.cancelled:
            pools.setdefault(row.kind, []).append(row)
    shared = {kind: (_pool(pool, "working"), _pool(pool, "twin")) for kind, pool in pools.items()}
    answer = {}
    for name, row in rows.items():
        if row.pools and row.kind in shared:
            working, twin = (relative.times(row.scale_rms) for relative in shared[row.kind])
            row = replace(row, working=row.working.joined(working), twin=row.twin.joined(twin))
        answer[name] = row
    return answer


def _pool(rows: list[Measured], which: str) -> Noise:
    relative = [(row.size, getattr(row, which).times(1 / row.scale_rms)) for row in rows]
    squares = sum(size * noise.rms**2 for size, noise in relative)
    return Noise(math.sqrt(squares / sum(size for size, _ in relative)), max(noise.maximum for _, noise in relative))
