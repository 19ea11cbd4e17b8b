"""One row: one compared tensor, its checks in order, its statistics and its two judgements."""

from dataclasses import dataclass

import numpy as np

from align.compare.statistics import Difference, compare
from align.record.store import Entry, Store

# INTERIM, until noise is measured: meaning holds if the relative Frobenius difference of the float64 runs is at most
# this. Measured on `pit_ti`: see docs/verdict.md.
MEANING_LIMIT = 1e-9

# INTERIM likewise: the working type may be this many times as far from the truth as the reference itself, at most.
PRECISION_FACTOR = 8.0


@dataclass(frozen=True)
class Judgement:
    """An error against its limit; both relative to the reference's Frobenius norm unless the row is exact."""

    error: float
    limit: float

    @property
    def ratio(self) -> float:
        if self.error == 0:
            return 0.0
        return self.error / self.limit if self.limit else float("inf")

    @property
    def holds(self) -> bool:
        return self.error <= self.limit


@dataclass(frozen=True)
class Row:
    """The verdict on one tensor of one step, with the facts it rests on."""

    step: str
    name: str
    kind: str
    verdict: str
    reason: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    headline: bool = False
    difference: Difference | None = None
    meaning: Judgement | None = None
    precision: Judgement | None = None
    allowance: float = 0.0  # absolute, on the maximum: what reprod_log's report is given as its threshold
    matched_by: str = "name"
    waived: str | None = None

    @property
    def ratio(self) -> float:
        """How far the row is from its limit: above 1 it fails."""
        return self.meaning.ratio if self.meaning else float("inf")


@dataclass(frozen=True)
class Sources:
    """The four stores a step's rows are read from; the twins are absent where a step is exact."""

    reference: Store
    port: Store
    reference_twin: Store | None
    port_twin: Store | None


def compare_step(step: str, sources: Sources) -> list[Row]:
    """Every tensor that either side recorded, in the reference's order, what only the port has last."""
    reference, port = sources.reference.entries, sources.port.entries
    names = [*reference, *(name for name in port if name not in reference)]
    return [_row(step, name, reference.get(name), port.get(name), sources) for name in names]


def _row(step: str, name: str, reference: Entry | None, port: Entry | None, sources: Sources) -> Row:
    there = reference or port
    assert there is not None
    facts = {"step": step, "name": name, "kind": there.kind, "headline": there.headline}
    facts |= {"shape": there.shape, "dtype": there.dtype}
    if reference is None or port is None:
        absent = "reference" if reference is None else "port"
        return Row(**facts, verdict="missing", reason=f"the {absent} has no such tensor")
    for what, expected, found in (("dtype", reference.dtype, port.dtype), ("shape", reference.shape, port.shape)):
        if expected != found:
            return Row(**facts, verdict="misaligned", reason=f"{what} {found} in the port, {expected} in the reference")
    difference = compare(sources.port[name], sources.reference[name])
    facts["difference"] = difference
    if not difference.nonfinite_equal:
        ours, theirs = difference.nonfinite_values or ("?", "?")
        where = (
            f"NaN or infinity differs in {difference.nonfinite_differing} places, first at {difference.nonfinite_index}"
        )
        return Row(**facts, verdict="misaligned", reason=f"{where}: {ours} in the port, {theirs} in the reference")
    if sources.reference_twin is None or sources.port_twin is None or np.dtype(reference.dtype).kind in "biu":
        meaning = Judgement(difference.max_abs, 0.0)
    else:
        meaning, precision, facts["allowance"] = _twin_judgements(
            name, sources, sources.reference_twin, sources.port_twin
        )
        if meaning is None:
            return Row(**facts, verdict="misaligned", reason="the float64 runs differ in shape, NaN or infinity")
        facts["precision"] = precision
    verdict = "aligned" if meaning.holds else "misaligned"
    reason = (
        "" if meaning.holds else f"meaning: {meaning.error:.3g} is {meaning.ratio:.3g}x the limit {meaning.limit:.3g}"
    )
    return Row(**facts, verdict=verdict, reason=reason, meaning=meaning)


def _twin_judgements(
    name: str, sources: Sources, reference_twin: Store, port_twin: Store
) -> tuple[Judgement | None, Judgement | None, float]:
    """Meaning (float64 against float64) and precision (working type against the reference's float64)."""
    if name not in reference_twin or name not in port_twin:
        return None, None, 0.0
    truth, other = reference_twin[name], port_twin[name]
    if truth.shape != other.shape:
        return None, None, 0.0
    between = compare(other, truth)
    if not between.nonfinite_equal:
        return None, None, 0.0
    ported, own = compare(sources.port[name], truth), compare(sources.reference[name], truth)
    ulp = float(np.spacing(np.asarray(own.reference_max, sources.reference[name].dtype)))
    allowance = PRECISION_FACTOR * max(own.max_abs, ulp)
    return Judgement(between.rel, MEANING_LIMIT), Judgement(ported.rel, PRECISION_FACTOR * own.rel), allowance
