"""A factor and a constant together."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence

RANK = 70


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not evidence.pair or evidence.unlike:
        return
    port, reference = evidence.pair
    if not varied(port) or not varied(reference):
        return
    centred = reference - reference.mean()
    factor = float(np.vdot(port - port.mean(), centred) / np.vdot(centred, centred))
    if not factor:
        return
    shift = float(port.mean() - factor * reference.mean())
    yield Hypothesis(
        "scale-and-shift",
        f"the port's value is {factor:.12g} times the reference's and {shift:.12g}",
        made=(port - shift) / factor,
        wanted=reference,
        fitted=2,
    )
