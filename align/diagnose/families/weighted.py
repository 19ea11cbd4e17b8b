"""A term that is weighted otherwise: the difference is some multiple of a value at hand."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from align.diagnose.arrays import equal
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.families.terms import LOOSE, at_hand, fits
from align.diagnose.numbers import NEAR, recognise

RANK = 66
MOST = 16  # values of which pairs are tried
SAMPLED = 256  # elements that weights are fitted to


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not evidence.pair or evidence.unlike:
        return
    port, reference = evidence.pair
    for name, whole, factor in fits(evidence):
        if abs(abs(factor) - 1) < NEAR:
            continue
        number = f"{abs(factor):.12g}"
        known = recognise(abs(factor), evidence.numbers)
        told = f"{number} times {name}" + (f" ({known})" if known and known != number else "")
        yield Hypothesis(
            "scaled-gradient" if evidence.gradient else "scale",
            f"the port has {told} {'less' if factor < 0 else 'more'} than the reference",
            made=port - factor * whole,
            wanted=reference,
            fitted=1,
        )
    yield from _of_two(evidence, port, reference)


def _of_two(evidence: Evidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    """Two terms at once: their weights were exchanged, or balanced otherwise."""
    some = [(name, value) for name, value in at_hand(evidence, port, reference) if value.shape == port.shape][:MOST]
    difference, step = (port - reference).reshape(-1), max(1, port.size // SAMPLED)
    for (name, first), (other, second) in combinations(some, 2):
        columns = np.stack((first.reshape(-1), second.reshape(-1)), 1)
        weights = np.linalg.lstsq(columns[::step], difference[::step], rcond=None)[0]
        if not weights.all() or not equal(columns @ weights, difference, LOOSE):
            continue
        told = f"{weights[0]:+.12g} times {name} and {weights[1]:+.12g} times {other}"
        made = port - (columns @ weights).reshape(port.shape)
        yield Hypothesis("wrong-weights", f"the port has {told}", made, reference, fitted=2)
