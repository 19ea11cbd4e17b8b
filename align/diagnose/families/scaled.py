"""A constant factor: the port's tensor is a multiple of the reference's."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.numbers import NEAR, recognise

RANK = 20
ROUNDED = 1e-5  # relative: factors this close to 1 are one constant, written with few digits


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not evidence.pair:
        return
    port, reference = evidence.pair
    flat, theirs = port.reshape(-1), reference.reshape(-1)
    if not varied(flat) or not varied(theirs):
        return
    factor = float(flat @ theirs / (theirs @ theirs))
    if factor == 0 or not np.isfinite(1 / factor):
        return
    known = recognise(factor, evidence.numbers)
    number = f"{factor:.12g}"
    told = f"{number} times the reference's"
    if known and known != number:
        told += f" ({known})"
    back = recognise(1 / factor, evidence.numbers)
    what = "gradient" if evidence.gradient else "value"
    name = _name(factor, evidence.gradient)
    yield Hypothesis(
        name,
        f"the port's {what} is {told}",
        made=port / factor,
        wanted=reference,
        fitted=1,
        change=f"multiply by {back or f'{1 / factor:.12g}'}",
    )


def _name(factor: float, gradient: bool) -> str:
    if abs(factor - 1) < ROUNDED:
        return "rounded-constant"
    if not gradient:
        return "scale"
    return "doubled-gradient" if abs(factor - 2) < NEAR else "scaled-gradient"
