"""A constant that is added."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence

RANK = 55


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not evidence.pair or evidence.unlike:
        return
    port, reference = evidence.pair
    if not varied(port) or not varied(reference):
        return
    shift = float(np.mean(port - reference))
    yield Hypothesis(
        "added-constant",
        f"the port's value is the reference's and {shift:.12g}",
        made=port - shift,
        wanted=reference,
        fitted=1,
        change=f"add {-shift:.12g}",
    )
