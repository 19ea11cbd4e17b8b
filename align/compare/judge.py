"""Judging a step: every tensor that either side recorded becomes a row."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from align.compare.noise import Measured, Noise, measure, pooled
from align.compare.rows import Judgement, Row, judge
from align.compare.statistics import Difference, compare, self_roll_difference
from align.compare.ulp import FORMATS, ulp
from align.record.store import Entry

# A port may be this many times as far off as the reference's own rounding: six bits. Measured (docs/verdict.md):
# correct ports reach 17, because Paddle adds up 1,000 terms one by one where PyTorch does so in lanes; known bugs, and
# a cast to half, bfloat16 or TF32 in the working type, lie far beyond.
FACTOR = 64.0

# Rows of what modules hand on, and draw, inside a model; all others are results.
OUTPUT = "output"  # what models that stand alone give
INSIDE = ("activation/", "activation_grad/", "probe/", "probe_grad/", "draw/", "draws/")

NOT_ROUNDED = ("metric",)  # counts: in the working type one sample may flip, in float64 none


class Tensors(Protocol):
    """What a recorded step offers: `align.record.store.Store`, or one with corrected values."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...
    def __getitem__(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Sources:
    """What a step's rows are read from: both sides' stores, and the reference's errors in its perturbed runs.

    A side that did not record the step is None; so are the twins where a step is exact. `working` is the dtype that the
    runs computed in, whatever type a number that left them as a Python float is recorded in. `no_twin` says why the
    port has no float64 run, where that is its framework's doing: then precision alone is judged.
    """

    reference: Tensors | None
    port: Tensors | None
    reference_twin: Tensors | None
    port_twin: Tensors | None
    noise: Mapping[str, Mapping[str, list[tuple[float, float]]]]
    working: str = "float32"
    no_twin: str = ""


@dataclass(frozen=True)
class _Corrected:
    """A port's tensors with one of them put through a deviation's formula."""

    source: Tensors
    name: str
    formula: Callable[[np.ndarray], np.ndarray]

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.source.entries

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.source[name]
        return self.formula(array).astype(array.dtype) if name == self.name else array


def judge_step(step: str, sources: Sources, fixed: float | None = None) -> list[Row]:
    """Every tensor that either side recorded, in the reference's order, what only the port has last.

    A tensor that is the same recorded bytes under a second name (a module's input that is another's output) is judged
    once, under the first. `fixed` gates values by mean |a - b| <= fixed, reprod_log's rule, instead of by noise.
    """
    reference = sources.reference.entries if sources.reference else {}
    port = sources.port.entries if sources.port else {}
    names = [*reference, *(name for name in port if name not in reference)]
    names = [name for name in names if not _judged_elsewhere(reference.get(name), port.get(name))]
    measured = noise_of(sources, names)
    rows = [_row(step, name, reference.get(name), port.get(name), sources, measured.get(name)) for name in names]
    rows = rejoined(_with_structure(rows, reference, port))
    return rows if fixed is None else [_by_fixed_rule(row, sources, fixed) for row in rows]


def _with_structure(rows: list[Row], reference: Mapping[str, Entry], port: Mapping[str, Entry]) -> list[Row]:
    """Where results of the model are missing, what the side gives instead: its outputs are structured otherwise."""
    told = {}
    for without, other in ((port, reference), (reference, port)):
        names = [name for name in without if name.partition("/")[0] == OUTPUT and name not in other]
        told[id(without)] = f"; it gives {', '.join(names[:4])}" if names else ""
    missing = [row.verdict == "missing" and row.name.partition("/")[0] == OUTPUT for row in rows]
    return [
        replace(row, reason=row.reason + told[id(port if row.name in reference else reference)]) if lacks else row
        for row, lacks in zip(rows, missing, strict=True)
    ]


def rejoined(rows: list[Row]) -> list[Row]:
    """What differs inside is innocent where every result of the step is right all the same.

    Module trees and names may be unlike, and an equivalent port may order its tokens otherwise; a difference that
    rejoins the reference before any result is none of meaning.
    """
    # A buffer is updated beside the way to the results.
    results = [row for row in rows if not row.name.startswith(INSIDE) and row.kind != "buffer"]
    if not results or any(row.bad for row in results):
        return rows
    reason = "not the reference's under this name, but every result of the step is"
    innocent = [row.bad and row.name.startswith(INSIDE) and _finite(row) for row in rows]
    return [
        replace(row, verdict="noted", reason=reason) if is_so else row
        for row, is_so in zip(rows, innocent, strict=True)
    ]


def _finite(row: Row) -> bool:
    """A NaN that only one side has is never innocent."""
    return row.difference is None or row.difference.nonfinite_equal


def with_formula(
    row: Row, sources: Sources, formula: Callable[[np.ndarray], np.ndarray], fixed: float | None = None
) -> Row:
    """The row as it would be judged with the port's tensor put through `formula`."""
    assert sources.port
    assert sources.reference
    twin = _Corrected(sources.port_twin, row.name, formula) if sources.port_twin else None
    changed = replace(sources, port=_Corrected(sources.port, row.name, formula), port_twin=twin)
    entries = sources.reference.entries.get(row.name), sources.port.entries.get(row.name)
    measured = noise_of(sources, list(sources.reference.entries)).get(row.name)
    again = _row(row.step, row.name, *entries, changed, measured)
    return again if fixed is None else _by_fixed_rule(again, changed, fixed)


def _by_fixed_rule(row: Row, sources: Sources, tolerance: float) -> Row:
    """reprod_log's rule behind the strict checks: what failed those, or lacks values, stays as it is.

    A row in which an answer of zeros, or its rolled copy, would pass this rule too is `insensitive` here as well.
    """
    found = row.difference
    if found is None or not found.nonfinite_equal or row.dtype not in FORMATS:
        return row
    if found.mean_abs <= tolerance:
        assert sources.reference
        row, truth = replace(row, verdict="aligned", reason=""), sources.reference[row.name]
        return _sensitive(row, found, truth, lambda rolled: rolled.mean_abs <= tolerance, tolerance)
    reason = f"fixed rule: mean absolute difference {found.mean_abs:.3g} exceeds {tolerance:.3g}"
    return replace(row, verdict="misaligned", reason=reason)


def _judged_elsewhere(*entries: Entry | None) -> bool:
    """Whether each side that has the tensor recorded it as a second name of one other; of different ones is a row."""
    origins = {entry.facts.get("same_as") if entry.facts else None for entry in entries if entry}
    return len(origins) == 1 and None not in origins


def noise_of(sources: Sources, names: list[str]) -> dict[str, Measured]:
    """The noise of every row that has a twin; small rows of a kind share theirs."""
    return pooled(own_noise(sources, names))


def own_noise(sources: Sources, names: Iterable[str]) -> dict[str, Measured]:
    """The noise of every row that has a twin, each row's own."""
    if sources.reference_twin is None or sources.reference is None:
        return {}
    found = {}
    for name in names:
        entry, twin = sources.reference.entries.get(name), sources.reference_twin.entries.get(name)
        if entry is None or twin is None or entry.shape != twin.shape or twin.dtype != "float64":
            continue
        own = compare(sources.reference[name], sources.reference_twin[name])
        scale = own.reference_rms, own.reference_max
        found[name] = measure(
            entry.kind, sources.working, own.size, scale, Noise(own.rms, own.max_abs), sources.noise.get(name, {})
        )
    return found


def _row(
    step: str, name: str, reference: Entry | None, port: Entry | None, sources: Sources, measured: Measured | None
) -> Row:
    there = reference or port
    assert there is not None
    row = Row(step, name, there.kind, "missing", shape=there.shape, dtype=there.dtype, headline=there.headline)
    if reference is None or port is None:
        return replace(row, reason=f"the {'reference' if reference is None else 'port'} has no such tensor")
    row = replace(row, verdict="misaligned")
    for what, theirs, ours in (("dtype", reference.dtype, port.dtype), ("shape", reference.shape, port.shape)):
        if theirs != ours:
            return replace(row, reason=f"{what} {ours} in the port, {theirs} in the reference")
    assert sources.reference
    assert sources.port
    difference = compare(sources.port[name], sources.reference[name])
    row = replace(row, difference=difference)
    if not difference.nonfinite_equal:
        return replace(row, reason=f"NaN or infinity: {_nonfinite(difference)}")
    if measured is None:
        return _judged_exactly(row, difference, sources.reference[name])
    return _judged_by_twin(row, sources, measured)


def _nonfinite(difference: Difference) -> str:
    ours, theirs = difference.nonfinite_values or (np.nan, np.nan)
    count, index = difference.nonfinite_differing, difference.nonfinite_index
    return (
        f"{count} of {difference.size} places differ, first at {index}: {ours} in the port, {theirs} in the reference"
    )


def _judged_exactly(row: Row, difference: Difference, reference: np.ndarray) -> Row:
    """Bytes, counts, names: any difference is one of meaning. The unit is one ulp, or 1 for integers."""
    unit = ulp(row.dtype, difference.reference_rms) if reference.dtype.kind == "f" else 1.0
    meaning = Judgement(difference.max_abs, unit, 0.0, "maximum")
    verdict = "aligned" if difference.equal else "misaligned"
    reason = "" if difference.equal else f"must be equal: {_greatest(difference)}"
    row = replace(row, verdict=verdict, reason=reason, meaning=meaning)
    return _sensitive(row, difference, reference, lambda rolled: rolled.equal)


def _judged_by_twin(row: Row, sources: Sources, measured: Measured) -> Row:
    """Meaning in float64; precision of the working type against the reference's float64."""
    assert sources.reference_twin
    assert sources.port
    truth = sources.reference_twin[row.name]
    ported_twin = sources.port_twin.entries.get(row.name) if sources.port_twin else None
    if sources.no_twin:
        return _judged_by_precision(row, sources, measured)
    if ported_twin is None or ported_twin.shape != sources.reference_twin.entries[row.name].shape:
        return replace(row, reason="the port's float64 run has no such tensor of this shape")
    assert sources.port_twin
    between = compare(sources.port_twin[row.name], truth)
    if not between.nonfinite_equal:
        return replace(row, reason=f"NaN or infinity in float64: {_nonfinite(between)}")
    meaning = judge(between, measured.twin, measured.twin.times(FACTOR))
    allowed = measured.working.times(FACTOR)
    precision = None
    if row.kind not in NOT_ROUNDED:
        precision = judge(compare(sources.port[row.name], truth), measured.working, allowed)
    failed = [
        f"{what} {judgement.ratio:.3g}x noise ({judgement.measure} {judgement.error:.3g}, limit {judgement.limit:.3g})"
        for what, judgement in (("meaning", meaning), ("precision", precision))
        if judgement and not judgement.holds
    ]
    row = replace(
        row,
        verdict="misaligned" if failed else "aligned",
        reason="; ".join([*failed, _greatest(between)] if failed else failed),
        meaning=meaning,
        precision=precision,
        noise=measured.working,
        allowance=allowed.maximum + measured.working.maximum,  # both sides may be off, to opposite sides
    )
    return _sensitive(
        row, between, truth, lambda rolled: judge(rolled, measured.twin, measured.twin.times(FACTOR)).holds
    )


def _judged_by_precision(row: Row, sources: Sources, measured: Measured) -> Row:
    """Where the port cannot run in float64: its working type against the reference's float64, and nothing finer."""
    assert sources.reference_twin
    assert sources.port
    truth, allowed = sources.reference_twin[row.name], measured.working.times(FACTOR)
    found = compare(sources.port[row.name], truth)
    precision = judge(found, measured.working, allowed)
    reason = f"precision {precision.ratio:.3g}x noise ({precision.measure} {precision.error:.3g}); {_greatest(found)}"
    row = replace(
        row,
        verdict="aligned" if precision.holds else "misaligned",
        reason="" if precision.holds else reason,
        precision=precision,
        noise=measured.working,
        allowance=allowed.maximum + measured.working.maximum,
    )
    return _sensitive(row, found, truth, lambda rolled: judge(rolled, measured.working, allowed).holds)


def _greatest(difference: Difference) -> str:
    if difference.values is None:
        return "no finite element differs"
    ours, theirs = difference.values
    return (
        f"{difference.differing} of {difference.size} elements differ, most at {difference.index}: "
        f"{ours!r} in the port, {theirs!r} in the reference"
    )


def _sensitive(
    row: Row, found: Difference, truth: np.ndarray, passes: Callable[[Difference], bool], zero: float = 0.0
) -> Row:
    """`insensitive` where a wrong answer would pass too: the truth is at most `zero`, or its rolled copy passes."""
    if row.verdict != "aligned":
        return row
    if found.pairs == 0:
        reason = "no element is finite" if found.size else "the truth is empty"
        return replace(row, verdict="insensitive", reason=reason)
    if found.reference_max <= zero:
        return replace(row, verdict="insensitive", reason="zeros would pass too" if zero else "the truth is zero")
    rolled = self_roll_difference(truth)
    if rolled is not None and passes(rolled):
        return replace(row, verdict="insensitive", reason="its rolled copy would pass too")
    return row
