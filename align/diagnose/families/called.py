"""Another module is called in the place of the right one, or the right one once more."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import equal
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.modules import ModuleEvidence

RANK = 15


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, ModuleEvidence) or evidence.gradient or not evidence.pair or not evidence.finding:
        return
    port, reference = evidence.pair
    missed, replays = evidence.finding.uncalled, evidence.replays
    for call in evidence.extra:
        given, made = (replays["paddle"].get(f"{call}/{what}") for what in ("in", "out"))
        if given is None or made is None:
            continue
        module = call.partition("#")[0]
        if equal(made, port) and equal(given, reference):
            text = f"{module} is called once more, on what the reference goes on with"
            id = "doubled-operation" if "#" in call else "extra-operation"
            yield Hypothesis(id, text, made=given, wanted=reference, change=f"do not call {module} again")
        taken, right = (replays["torch"].get(f"{missed}/{what}") for what in ("in", "out"))
        if taken is None or right is None or not equal(given, taken) or made.shape != right.shape:
            continue
        wrong = made - right
        if wrong.shape == port.shape and wrong.any():
            weight = float(np.vdot(port - reference, wrong) / np.vdot(wrong, wrong))
            text = f"{module} is called in the port, {missed} in the reference, on the same input"
            corrected = port - weight * wrong
            yield Hypothesis("wrong-module", text, corrected, reference, fitted=1, change=f"call {missed}")
