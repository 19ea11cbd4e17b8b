"""Two files of other projects, as dictionaries of arrays: nothing is known of them but their numbers, so the limits are assumed, and strict.

With a float64 twin the noise would be measured; without, an error of some ulp at the row's scale is taken for rounding. `fixed` is reprod_log's
own rule (mean of |a - b|, ReprodDiffHelper's default method) behind checks that it lacks: presence, dtype, shape, NaN and infinity.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from align.compare.arrays import Array, BFloat16, dtype_name
from align.compare.statistics import Difference
from align.compare.strict import check
from align.compare.ulp import FORMATS, ulp
from align.errors import UsageError

# The assumed limits, in ulp of the type at the reference's rms (at the value itself for 0-d), set by the project's verdict rule.
REL_ULPS = 64
MAX_ULPS = 1024
SCALAR_ULPS = 16
ASSUMED = "assumed, no twin"
FIXED = "fixed"
EXACT = "exact"
DEPTH = 64  # nested containers; real files have two or three levels, and a file that contains itself has no end


@dataclass(frozen=True, slots=True)
class Limits:
    """What a row was allowed, by which rule (`assumed, no twin`, `fixed`, `exact`); None where the rule does not look."""

    rule: str
    rel: float | None = None  # relative Frobenius
    max_abs: float | None = None
    max_ulp: int | None = None
    mean_abs: float | None = None


@dataclass(frozen=True, slots=True)
class BareRow:
    """One name of either file: `aligned`, `misaligned` or `missing`, the facts if shapes agree, and the reason in words unless aligned."""

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
        return sum(
            row.verdict != "missing" and (row.difference is None or row.difference.size > 0) for row in self.rows
        )

    @property
    def verdict(self) -> str:
        """`empty` if nothing was compared, else `aligned` only if every row is."""
        if self.compared == 0:
            return "empty"
        return "aligned" if all(row.verdict == "aligned" for row in self.rows) else "misaligned"


def compare_dictionaries(a: Mapping, b: Mapping, fixed: float | None = None) -> BareResult:
    """Compare two possibly nested dictionaries of arrays, row by row; `b` is the reference.

    Leaves are numpy arrays, `BFloat16` or plain numbers; lists count as dictionaries keyed by position. Names are paths joined by '/'. `fixed`
    replaces the assumed limits by mean |a - b| <= fixed. Raises UsageError, with the path, for leaves that are not numbers, for two
    entries of one name, for nesting beyond 64 levels, and for a tolerance that is not a number >= 0.
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


def _gather(value, path: tuple[str, ...], leaves: dict) -> None:
    name = "/".join(path)
    if len(path) > DEPTH:
        raise UsageError(f"{'/'.join(path[:4])}/...: nested more than {DEPTH} levels deep; a log of tensors is not")
    if isinstance(value, (Mapping, list, tuple)):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _gather(inner, (*path, str(key)), leaves)
        return
    if isinstance(value, (bool, int, float, complex, np.generic)):
        value = np.asarray(value)
    numeric = (
        isinstance(value, BFloat16)
        or isinstance(value, np.ndarray)
        and (value.dtype.kind in "fiubc" and value.dtype.itemsize <= (16 if value.dtype.kind == "c" else 8))
    )
    if not numeric:
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UsageError(
            f"{name or 'the top level'}: holds {kind}; arrays of numbers of at most 64 bits can be compared"
        )
    if name in leaves:
        raise UsageError(f"{name}: two entries of one dictionary have this path; rename one")
    leaves[name] = value


def _row(name: str, a: Array | None, b: Array | None, fixed: float | None) -> BareRow:
    strict = check(a, b)
    if a is None or b is None:
        return BareRow(name, "missing", None, None, str(strict.failure))
    if not strict.comparable:
        return BareRow(name, "misaligned", strict.difference, None, str(strict.failure))
    limits = _limits(dtype_name(b), b.shape, strict.difference, fixed)
    reason = _excess(strict.difference, limits)
    return BareRow(name, "misaligned" if reason else "aligned", strict.difference, limits, reason)


def _limits(dtype: str, shape: tuple[int, ...], difference: Difference, fixed: float | None) -> Limits:
    if fixed is not None:
        return Limits(FIXED, mean_abs=fixed)
    if dtype.startswith("complex"):
        dtype = {"complex64": "float32", "complex128": "float64"}[dtype]
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
    words = {
        "rel": "relative Frobenius difference",
        "max_abs": "greatest absolute difference",
        "max_ulp": "distance in ulp",
        "mean_abs": "mean absolute difference",
    }
    for name, phrase in words.items():
        allowed = getattr(limits, name)
        value = getattr(difference, name)
        if allowed is not None and not value <= allowed:
            place = ""
            if name == "max_abs" and difference.values is not None:
                place = f" at {difference.index} ({difference.values[0]!r} against {difference.values[1]!r})"
            return f"{phrase} {value:.6g}{place} exceeds {allowed:.6g} ({limits.rule})"
    return ""
