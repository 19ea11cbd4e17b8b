"""A term or a factor that is missing, extra, or in the place of another: the difference is a value at hand."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import broadcasts, equal, sampled, varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.numbers import NEAR

RANK = 50
MOST = 40  # values of which pairs are tried
LOOSE = 2.0**-20  # relative: what is looked at more closely


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not evidence.pair or evidence.unlike:
        return
    port, reference = evidence.pair
    for name, whole, factor in fits(evidence):
        if abs(abs(factor) - 1) < NEAR:
            yield _term(evidence, name, port - factor * whole, reference, factor)
    if not evidence.gradient:
        values = at_hand(evidence, port, reference)
        yield from _parts(port, reference, values)
        yield from _exchanged(port, reference, values)
        yield from _factors(port, reference, values)


def at_hand(evidence: Evidence, port: np.ndarray, reference: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The values that fit; not the two themselves, which make up any difference."""
    return [
        (name, value)
        for name, value in broadcasts(evidence.values, port.shape)
        if np.isfinite(sampled(value, port.shape)).all() and not equal(value, reference) and not equal(value, port)
    ]


def fits(evidence: Evidence) -> Iterator[tuple[str, np.ndarray, float]]:
    """(name, value, factor) where the port is the reference and that many times the value."""
    if not evidence.pair:
        return
    port, reference = evidence.pair
    difference = port - reference
    few = sampled(difference, port.shape)
    for name, value in at_hand(evidence, port, reference):
        some = sampled(value, port.shape)
        size = float(some @ some)
        if not size or not equal(some * float(few @ some) / size, few, LOOSE) or not varied(value):
            continue
        whole = np.broadcast_to(value, port.shape)
        size = float(np.vdot(whole, whole))
        factor = float(np.vdot(difference, whole)) / size
        if factor and equal(factor * whole, difference, LOOSE):
            yield name, whole, factor


def _term(evidence: Evidence, name: str, made: np.ndarray, reference: np.ndarray, factor: float) -> Hypothesis:
    bias = name.startswith("parameter") and name.rpartition(".")[2] == "bias"
    if evidence.gradient:
        way, id = ("nothing", "detached-gradient") if factor < 0 else ("more", "extra-gradient")
        return Hypothesis(id, f"{way} flows back where {name} does in the reference", made, reference, fitted=1)
    if factor < 0:
        id = "missing-bias" if bias else "missing-residual" if name.startswith("the input of") else "missing-term"
        return Hypothesis(id, f"{name} is not added in the port", made, reference, fitted=1, change=f"add {name}")
    id = "extra-bias" if bias else "extra-term"
    return Hypothesis(id, f"{name} is added once more in the port", made, reference, fitted=1)


def _parts(port: np.ndarray, reference: np.ndarray, values: list[tuple[str, np.ndarray]]) -> Iterator[Hypothesis]:
    """A stretch of a value of one axis, the bias of queries alone for instance, is left out or added once more."""
    difference = port - reference
    for name, value in values:
        (axis, *others) = [k for k, size in enumerate(value.shape) if size > 1] or [0]
        if others or value.size < 2:
            continue
        axis += port.ndim - value.ndim
        along = np.moveaxis(difference, axis, -1).reshape(-1, value.size)
        changed = np.flatnonzero(np.abs(along[0]) > LOOSE * np.abs(along).max())
        if not changed.size or changed.size == value.size or np.ptp(changed) >= changed.size:
            continue
        part = np.zeros(value.size)
        part[changed] = value.reshape(-1)[changed]
        for sign, id, words in ((-1, "missing", "not added"), (1, "extra", "added once more")):
            if varied(part[changed]) and equal(np.broadcast_to(sign * part, along.shape), along, LOOSE):
                kind = "bias" if name.startswith("parameter") and name.rpartition(".")[2] == "bias" else "term"
                text = f"of {name} the elements {changed[0]} to {changed[-1]} are {words} in the port"
                made = port - np.moveaxis(np.broadcast_to(sign * part, along.shape).reshape(
                    *(size for k, size in enumerate(port.shape) if k != axis), value.size), -1, axis)  # fmt: skip
                yield Hypothesis(f"{id}-{kind}", text, made, reference, fitted=2)


def _exchanged(port: np.ndarray, reference: np.ndarray, values: list[tuple[str, np.ndarray]]) -> Iterator[Hypothesis]:
    """One value at hand is added in the place of another."""
    difference, some = port - reference, values[:MOST]
    few, drawn = sampled(difference, port.shape), {name: sampled(value, port.shape) for name, value in some}
    for name, value in some:
        for other, theirs in some:
            if other != name and equal(drawn[name] - drawn[other], few, LOOSE):
                text = f"{name} is added in the port, {other} in the reference"
                yield Hypothesis("wrong-operand", text, port - value + theirs, reference, change=f"add {other}")


def _factors(port: np.ndarray, reference: np.ndarray, values: list[tuple[str, np.ndarray]]) -> Iterator[Hypothesis]:
    ours, theirs = sampled(port, port.shape), sampled(reference, port.shape)
    for name, value in values:
        some = sampled(value, port.shape)
        times = equal(ours * some, theirs, LOOSE)
        if (not times and not equal(theirs * some, ours, LOOSE)) or not value.all() or not varied(value):
            continue
        if equal(port * value, reference, LOOSE):
            yield Hypothesis("missing-factor", f"the port does not multiply by {name}", port * value, reference)
        elif equal(port / value, reference, LOOSE):
            yield Hypothesis("extra-factor", f"the port multiplies by {name} once more", port / value, reference)
