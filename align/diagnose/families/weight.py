"""Weights that were loaded wrong: under another name, turned, in another order, rounded, or not at all."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from align.diagnose.arrays import equal, varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.families.rounded import rounded
from align.diagnose.order import along_axes, described
from align.diagnose.rows import RowEvidence

RANK = 5
FILES = ("file", "read", "native")  # before a row's name: of what file, see `align/steps/weights.py`
HALF = ("float16", "bfloat16")
DEVIATIONS = 5  # of a correlation by chance


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.step != "weights":
        return
    if evidence.port is None or evidence.reference is None:
        yield from _named(evidence)
        return
    port, reference = evidence.port, evidence.reference
    for dtype in HALF:
        yield Hypothesis(
            "weight-precision",
            f"{evidence.name} went through {dtype} in the port",
            made=rounded(reference, dtype),
            wanted=port,
            change=f"leave out the cast to {dtype}",
        )
    yield from _turned(evidence, port, reference)
    yield from _not_loaded(evidence, port, reference)
    yield from _of_another(evidence, port)
    for axes, order in along_axes(port, reference, 1):
        (axis,) = axes
        blocks = "qkv" in evidence.name and order.size % 3 == 0
        yield Hypothesis(
            "qkv-order" if blocks else "permuted-channels",
            f"along axis {axis} of {evidence.name} {port.shape} the port has the reference's values {described(order)}",
            made=np.take(port, np.argsort(order), axis),
            wanted=reference,
            fitted=order.size,
        )


def _named(evidence: RowEvidence) -> Iterator[Hypothesis]:
    """A name that one side alone has: the array may stand under another, which means something else there."""
    port, reference = evidence.rows.port, evidence.rows.reference
    missing = evidence.port is None
    own, other = (reference, port) if missing else (port, reference)
    array = evidence.reference if missing else evidence.port
    prefix = _prefix(evidence.name)
    strangers = [name for name in other if name not in own and _prefix(name) == prefix]
    for name in other:
        if array is None or array.shape != other[name].shape or _prefix(name) != prefix or not varied(array):
            continue
        if name not in own or not equal(own[name].astype(np.float64), array):
            ours, theirs = (name, evidence.name) if missing else (evidence.name, name)
            yield _renamed(ours, theirs, other[name].astype(np.float64), array)
    # All names of both sides: without those that one of them alone has, they are the same.
    here = [name for name in {**reference, **port} if _prefix(name) == prefix]
    lone = [name for name in here if name not in other]
    there, whole = (np.array([float(name in side) for name in here]) for side in (other, own))
    whole[[here.index(name) for name in lone]] = 0
    if not strangers:
        told = f"{len(lone)} of {len(here)} keys, {evidence.name} among them"
        yield Hypothesis(
            "missing-key" if missing else "unexpected-key",
            f"{told}, are {'missing in the port' if missing else 'unknown to the reference'}, under any name",
            made=whole,
            wanted=there,
            fitted=len(lone),
        )


def _renamed(ours: str, theirs: str, made: np.ndarray, wanted: np.ndarray) -> Hypothesis:
    told = f"the port has {theirs} under the name {ours}"
    return Hypothesis("key-renamed", told, made=made, wanted=wanted, change=f"name it {theirs}")


def _turned(evidence: RowEvidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    if reference.ndim not in (2, 3, 4):
        return
    for axes in permutations(range(reference.ndim)):
        turned = reference.transpose(axes)
        if axes == tuple(range(reference.ndim)) or turned.size != port.size:
            continue
        last = reference.ndim > 2 and axes == (*range(reference.ndim - 2), reference.ndim - 1, reference.ndim - 2)
        how = "transposed" if reference.ndim == 2 else f"with its axes in the order {axes}"
        if turned.shape != port.shape:
            how += f" and then read as {port.shape}"
        yield Hypothesis(
            "swapped-height-width" if last else "weight-transposed",
            f"the port has {evidence.name} {reference.shape} {how}",
            made=turned.reshape(port.shape),
            wanted=port,
            fitted=0 if min(reference.shape) > 1 else port.size,
            change="transpose it" if reference.ndim == 2 else None,
        )


def _not_loaded(evidence: RowEvidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    if port.shape != reference.shape:
        return
    initial = evidence.rows.steps.get("init", {}).get(f"{_bare(evidence.name)}/sample")
    if port.size > 1 and not varied(port) and varied(reference):
        value = port.reshape(-1)[0]
        stale = initial is not None and initial[0] == initial[-1] == value
        told = "the constant that it is initialised by: it was not loaded" if stale else "constant"
        yield Hypothesis(
            "weight-stale" if stale else "weight-constant",
            f"every number of {evidence.name} is {value:.9g} in the port, {told}",
            made=np.full(port.shape, value),
            wanted=port,
            fitted=1,
        )
    if initial is None or initial.size <= port.size or initial[0] == initial[-1]:
        return
    sample = initial[(np.arange(port.size) + 0.5).astype(np.int64) * initial.size // port.size].astype(np.float64)
    if not np.isin(port, reference).any() and _unrelated(port.reshape(-1), reference.reshape(-1)):
        yield Hypothesis(
            "weight-stale",
            f"{evidence.name} holds numbers of its initial distribution, in [{initial[0]:.3g}, {initial[-1]:.3g}], in "
            "the port, none of them of the given weight: it was not loaded",
            made=port.reshape(-1),
            wanted=sample,
            alike=True,
        )


def _unrelated(port: np.ndarray, reference: np.ndarray) -> bool:
    """Whether two arrays (n,) correlate no more than independent draws may."""
    return bool(abs(np.corrcoef(port, reference)[0, 1]) * np.sqrt(port.size) < DEVIATIONS)


def _of_another(evidence: RowEvidence, port: np.ndarray) -> Iterator[Hypothesis]:
    prefix = _prefix(evidence.name)
    for name, array in evidence.rows.reference.items():
        if name == evidence.name or array.shape != port.shape or _prefix(name) != prefix or not varied(array):
            continue
        if name not in evidence.rows.port:  # there it is not exchanged, but one of several that have moved on
            yield _renamed(evidence.name, name, array.astype(np.float64), port)
        else:
            yield Hypothesis(
                "weight-exchanged",
                f"{evidence.name} holds the reference's {name} in the port",
                made=array.astype(np.float64),
                wanted=port,
                change=f"give it {evidence.name}",
            )


def _prefix(name: str) -> str:
    first = name.partition("/")[0]
    return first if first in FILES else ""


def _bare(name: str) -> str:
    return name.removeprefix(f"{_prefix(name)}/")
