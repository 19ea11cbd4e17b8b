"""Two files of other projects, as dictionaries of arrays: strict about form, with limits that can only be assumed.

With a float64 twin the noise would be measured; without, an error of some ulp at the row's scale is taken for
rounding. `fixed` is reprod_log's own rule (mean of |a - b|, the default method of its `ReprodDiffHelper.report`) behind
the checks that it lacks: presence, dtype, shape, NaN and infinity.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.compare.arrays import Array, BFloat16, describe, dtype_name
from align.compare.statistics import Difference
from align.compare.strict import check
from align.compare.ulp import FORMATS, ulp
from align.errors import UsageError

# The assumed limits, in ulp of the type at the reference's rms; for 0-d, in representable numbers between the two.
REL_ULPS = 64
MAX_ULPS = 1024
SCALAR_ULPS = 16
ASSUMED = "assumed, no twin"
FIXED = "fixed"
EXACT = "exact"
DEPTH = 64  # nested containers; real files have two or three levels, and a container that holds itself has no end
PARTS = {"complex64": "float32", "complex128": "float64"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a row was allowed, by which rule (`assumed, no twin`, `fixed`, `exact`); None: the rule does not look."""

    rule: str
    rel: float | None = None  # relative Frobenius
    max_abs: float | None = None
    max_ulp: int | None = None
    mean_abs: float | None = None


@dataclass(frozen=True, slots=True)
class BareRow:
    """One name of either file: `aligned`, `misaligned` or `missing`; facts if shapes agree; a reason unless aligned."""

    name: str
    verdict: str
    difference: Difference | None
    limits: Limits | None
    reason: str


@dataclass(frozen=True, slots=True)
class BareResult:
    """All rows, in the first dictionary's order, then what only the second has."""

    rows: tuple[BareRow, ...]

    @property
    def compared(self) -> int:
        """Rows that had something to compare on both sides; equal shapes without an element have nothing."""
        both = [row for row in self.rows if row.verdict != "missing"]
        return sum(row.verdict == "misaligned" or row.difference is None or row.difference.size > 0 for row in both)

    @property
    def verdict(self) -> str:
        """`empty` if nothing was compared, else `aligned` only if every row is."""
        if self.compared == 0:
            return "empty"
        return "aligned" if all(row.verdict == "aligned" for row in self.rows) else "misaligned"


def compare_dictionaries(a: Mapping, b: Mapping, fixed: float | None = None) -> BareResult:
    """Compare two possibly nested dictionaries of arrays, row by row; `b` is the reference.

    Leaves are numpy arrays, `BFloat16` or plain numbers; lists count as dictionaries keyed by position. Names are paths
    joined by '/'. `fixed` replaces the assumed limits by mean |a - b| <= fixed. Raises UsageError, with the path, for
    leaves that are not numbers, for two entries of one name, for nesting beyond 64 levels, and for a tolerance that is
    not a finite number of at least 0.
    """
    if fixed is not None and not 0.0 <= fixed < math.inf:
        raise UsageError(f"the fixed tolerance must be a finite number of at least 0, not {fixed}")
    left = flatten(a)
    right = flatten(b)
    names = [*left, *(name for name in right if name not in left)]
    return BareResult(tuple(_row(name, left.get(name), right.get(name), fixed) for name in names))


def flatten(value: Mapping) -> dict[str, Array]:
    """Path -> array of everything in nested dictionaries and lists, in their order."""
    leaves: dict[str, Array] = {}
    _gather(value, (), leaves)
    return leaves


def _gather(value: Any, path: tuple[str, ...], leaves: dict[str, Array]) -> None:
    name = "/".join(path) or "the top level"
    if len(path) > DEPTH:
        raise UsageError(f"{'/'.join(path[:4])}/...: nested more than {DEPTH} levels deep; a log of tensors is not")
    if isinstance(value, (Mapping, list, tuple)):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _gather(inner, (*path, str(key)), leaves)
        return
    if isinstance(value, (bool, int, float, complex, np.generic)):
        value = np.asarray(value)
    if not isinstance(value, (BFloat16, np.ndarray)):
        raise UsageError(f"{name}: holds a {type(value).__name__}; only arrays of numbers can be compared")
    if isinstance(value, np.ndarray):
        try:
            describe(value.dtype)
        except TypeError as error:
            raise UsageError(f"{name}: {error}") from error
    if name in leaves:
        raise UsageError(f"{name}: two entries of one file have this path; rename one")
    leaves[name] = value


def _row(name: str, a: Array | None, b: Array | None, fixed: float | None) -> BareRow:
    strict = check(a, b)
    difference = strict.difference
    if a is None or b is None:
        return BareRow(name, "missing", None, None, str(strict.failure))
    if difference is None or not strict.comparable:
        return BareRow(name, "misaligned", difference, None, str(strict.failure))
    limits = _limits(dtype_name(b), b.shape, difference, fixed)
    reason = _excess(difference, limits)
    return BareRow(name, "misaligned" if reason else "aligned", difference, limits, reason)


def _limits(dtype: str, shape: tuple[int, ...], difference: Difference, fixed: float | None) -> Limits:
    if fixed is not None:
        return Limits(FIXED, mean_abs=fixed)
    dtype = PARTS.get(dtype, dtype)
    if dtype not in FORMATS:
        return Limits(EXACT, max_abs=0.0)
    if shape == ():
        return Limits(ASSUMED, max_ulp=SCALAR_ULPS)
    rms = difference.reference_rms
    if rms == 0.0:
        return Limits(ASSUMED, rel=0.0, max_abs=0.0)
    unit = ulp(dtype, rms)
    return Limits(ASSUMED, rel=REL_ULPS * unit / rms, max_abs=MAX_ULPS * unit)


def _excess(difference: Difference, limits: Limits) -> str:
    """Which limit the row exceeds, with both figures; empty if none."""
    quantities = [
        ("relative Frobenius difference", difference.rel, limits.rel),
        ("greatest absolute difference", difference.max_abs, limits.max_abs),
        ("distance in ulp", difference.max_ulp, limits.max_ulp),
        ("mean absolute difference", difference.mean_abs, limits.mean_abs),
    ]
    for words, value, allowed in quantities:
        if value is None or allowed is None or value <= allowed:
            continue
        text = f"{words} {value:.6g} exceeds {allowed:.6g} ({limits.rule})"
        if difference.values is not None:
            ours, theirs = difference.values
            text += f"; greatest difference {difference.max_abs:.6g} at {difference.index}: {ours!r} against {theirs!r}"
        return text
    return ""
