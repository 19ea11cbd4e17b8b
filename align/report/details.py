"""What the recordings add to the JSON of a verdict: where in a tensor the error sits, and how the training run went.

Everything here is small, whatever the tensors are: a report holds it for the worst rows only.
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from align.compare.judge import FACTOR, Sources, noise_of
from align.compare.runs import Runs
from align.record.manifest import Recording
from align.record.store import Store
from align.report.pictures import pictures

Row = Mapping[str, Any]

ROWS = 200  # rows whose error is shown element by element
SIDE = 32  # cells of a heat map along either axis
BINS = 40  # of a histogram
DECADES = 4  # below the greatest error that a heat map tells apart
LEAST, POINTS = 4, 600  # points of a training curve: fewer are none, of more some are left out
ELEMENTS = 1 << 24  # of one tensor, 128 MiB in float64: what is larger is left out
WORK = 1 << 27  # elements of all tensors together: 12 s of one core (1.4 s for 2^24, measured)

ZERO, NOT_FINITE = 0, 255  # the bytes of a heat map for no error, and for NaN or infinity on one side only


def details(runs: Runs, rows: Sequence[Row]) -> dict[str, Any]:
    """`{"rows": {position in rows: error map}, "training": [curve], "pictures": [picture]}` of the JSON rows.

    What a recording does not hold (kept as a summary only, or under another name in the port) is left out.
    """
    pairs = _Pairs(runs)
    return {
        "rows": dict(_maps(pairs, rows)),
        "training": list(_training(pairs)),
        "pictures": pictures(rows, pairs.working),
    }


def excess(row: Row) -> float:
    """How far a JSON row is beyond its limits, 1 at the limit; infinite for what is missing or not a number."""
    judged = [row[name] for name in ("meaning", "precision") if row[name]]
    if not judged:
        return math.inf if row["verdict"] in ("misaligned", "missing") else 0.0
    return max(_quotient(float(found["error"]), float(found["limit"])) for found in judged)


def _quotient(error: float, limit: float) -> float:
    if error == 0:
        return 0.0
    return error / limit if limit and not math.isnan(error) else math.inf


class _Pairs:
    """Both sides' tensors of one name, the reference's first."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._stores: dict[tuple[str, str], Store] = {}

    def working(self, step: str, name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """As recorded in the working type; None for a side that does not hold it."""
        return self._tensor(self.runs.reference, step, name), self._tensor(self.runs.port, step, name)

    def finest(self, step: str, name: str) -> tuple[np.ndarray, np.ndarray, str] | None:
        """The float64 twins, or the working type's where there are none; None unless both sides have one shape."""
        for reference, port in ((self.runs.reference_twin, self.runs.port_twin), (self.runs.reference, self.runs.port)):
            theirs, ours = self._tensor(reference, step, name), self._tensor(port, step, name)
            if reference and theirs is not None and ours is not None and theirs.shape == ours.shape:
                return theirs, ours, reference.manifest.dtype
        return None

    def store(self, run: Recording | None, step: str) -> Store | None:
        if run is None or step not in run.manifest.steps:
            return None
        key = str(run.folder), step
        if key not in self._stores:
            self._stores[key] = run.step(step)
        return self._stores[key]

    def _tensor(self, run: Recording | None, step: str, name: str) -> np.ndarray | None:
        store = self.store(run, step)
        entry = store.entries.get(name) if store else None
        return store[name] if store and entry and entry.stored else None


def _maps(pairs: _Pairs, rows: Sequence[Row]) -> Iterator[tuple[int, dict[str, Any]]]:
    worst = sorted(range(len(rows)), key=lambda index: -excess(rows[index]))
    work = 0
    for index in worst[:ROWS]:
        row = rows[index]
        if excess(row) == 0 or row["matched_by"] not in (None, "name"):
            continue
        found = pairs.finest(row["step"], row["name"])
        if found is None or not 0 < found[0].size <= ELEMENTS or (work := work + found[0].size) > WORK:
            continue
        yield index, {"dtype": found[2], **error_map(found[1], found[0])}


def error_map(port: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Where |port - reference| is great, and how its logarithm is distributed.

    `grid` has the last two axes longer than 1, `strips` one entry a leading axis; a cell is the greatest error in its
    block over all other axes. Cells are base64 of bytes: 0 no error, 255 not finite, between them the logarithm from
    10^-DECADES of `greatest` (or less) to `greatest`.
    """
    error = _error(port, reference)
    finite = error[np.isfinite(error)]
    greatest = float(finite.max(initial=0.0))
    axes = [axis for axis, length in enumerate(error.shape) if length > 1]
    strips = [_cells(error, (axis,), greatest) for axis in axes[:-2]]
    return {
        "greatest": greatest,
        "grid": _cells(error, tuple(axes[-2:]), greatest) if axes else None,
        "strips": strips,
        "histogram": _histogram(finite, error.size),
    }


def _error(port: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """|port - reference| in float64: 0 where both are NaN or the same infinity, infinite where only one is."""
    wide = np.complex128 if "c" in (port.dtype.kind, reference.dtype.kind) else np.float64
    ours, theirs = port.astype(wide), reference.astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.asarray(np.abs(ours - theirs))  # of two numbers, numpy makes a number
    error[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0.0
    error[~np.isfinite(error)] = np.inf
    return error


def _cells(error: np.ndarray, axes: tuple[int, ...], greatest: float) -> dict[str, Any]:
    others = tuple(axis for axis in range(error.ndim) if axis not in axes)
    pooled = error.max(axis=others)
    for axis, length in enumerate(pooled.shape):
        cells = min(length, SIDE)
        pooled = np.maximum.reduceat(pooled, np.arange(cells) * length // cells, axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = 1 + np.log10(pooled / greatest) / DECADES if greatest else np.zeros_like(pooled)
    # Level 0 is where the scale begins: an error below it is still one.
    coded = np.where(pooled == 0, ZERO, 1 + 253 * np.clip(np.nan_to_num(level, neginf=0.0), 0, 1))
    coded = np.where(np.isfinite(pooled), coded, NOT_FINITE).astype(np.uint8)
    return {
        "axes": list(axes),
        "lengths": [error.shape[axis] for axis in axes],
        "cells": list(pooled.shape),
        "bytes": base64.b64encode(coded.tobytes()).decode(),
    }


def _histogram(finite: np.ndarray, size: int) -> dict[str, Any]:
    """Counts over equal bins of log10 of the error, `from` to `to`; what is zero or not finite is counted apart."""
    logarithms = np.log10(finite[finite > 0])
    # Between errors that are all but equal there is no room for bins: then half a decade on either side.
    low, high = (logarithms.min(), logarithms.max()) if logarithms.size else (0.0, 0.0)
    room = 0.0 if high - low > 1e-3 else 0.5
    counts, edges = np.histogram(logarithms, BINS, (low - room, high + room))
    counts = counts if logarithms.size else counts[:0]
    return {
        "from": round(float(edges[0]), 3),
        "to": round(float(edges[-1]), 3),
        "counts": counts.tolist(),
        "zero": int(finite.size - logarithms.size),
        "nonfinite": int(size - finite.size),
    }


def _training(pairs: _Pairs) -> Iterator[dict[str, Any]]:
    """Both sides' curves of `train_align`, their distance from the reference's float64 run, and what it may be."""
    step, runs = "train_align", pairs.runs
    reference, port = pairs.store(runs.reference, step), pairs.store(runs.port, step)
    if reference is None or port is None:
        return
    twins = pairs.store(runs.reference_twin, step), pairs.store(runs.port_twin, step)
    curves = [name for name, entry in reference.entries.items() if entry.kind == "curve" and len(entry.shape) == 1]
    stores = [store for store in (reference, *twins) if store]
    names = [name for name in curves if all(name not in of or of[name].stored for of in (s.entries for s in stores))]
    working = runs.reference.manifest.dtype
    measured = noise_of(Sources(reference, port, *twins, runs.reference.noise(step), working), names)
    for name in names:
        theirs, ours = pairs.working(step, name)
        if theirs is None or ours is None or theirs.shape != ours.shape or theirs.size < LEAST:
            continue
        shown = np.unique(np.linspace(0, theirs.size - 1, min(theirs.size, POINTS)).astype(int))
        finest = pairs.finest(step, name)
        truth = finest[0] if finest else theirs
        limits = measured.get(name)
        curve = {
            "name": name,
            "iteration": shown.tolist(),
            "reference": _numbers(theirs[shown]),
            "port": _numbers(ours[shown]),
            "reference_error": _numbers(_error(theirs, truth)[shown]),
            "port_error": _numbers(_error(ours, truth)[shown]),
            "limit": _finite(limits.working.maximum * FACTOR) if limits else None,
        }
        if finest and finest[2] != working:
            curve["twin_error"] = _numbers(_error(finest[1], truth)[shown])
            curve["twin_limit"] = _finite(limits.twin.maximum * FACTOR) if limits else None
        yield curve


def _numbers(values: np.ndarray) -> list[float | None]:
    """Six digits of each; None where it is not finite."""
    return [_finite(float(f"{value:.6g}")) for value in values.tolist()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
