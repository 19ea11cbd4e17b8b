"""The port's tensor is another value at hand; or the port had the right one and went on."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import equal, varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.families.sliced import windows
from align.diagnose.modules import ModuleEvidence

RANK = 65


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    port, reference = evidence.port, evidence.reference
    if port is None or reference is None or port.dtype.kind != "f" or not varied(port) or not varied(reference):
        return
    if evidence.gradient:
        return
    for name, value in evidence.values.items():
        if value.shape == port.shape and equal(port, value):
            id, text = _of_a_value(evidence, name)
            yield Hypothesis(id, text, made=value, wanted=port)
    yield from _same_part(evidence, port, reference)
    if isinstance(evidence, ModuleEvidence):
        for name, value in evidence.own.items():
            if value.shape == reference.shape and equal(value, reference):
                id = "doubled-operation" if _is_repeated(evidence) else "extra-operation"
                text = f"the port has the reference's value as {name}, and then works on it once more"
                yield Hypothesis(id, text, made=value, wanted=reference, change=f"hand on {name}")


def _same_part(evidence: Evidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    """The part of one value that the reference takes of another."""
    larger = [(name, value) for name, value in evidence.values.items() if value.size > port.size]
    for name, value in larger:
        for ours in windows(value, port):
            for other, theirs in larger:
                if other != name and theirs.shape == value.shape and ours in windows(theirs, reference):
                    id, text = _of_a_value(evidence, name)
                    axis, start, length = ours
                    made = np.take(theirs, range(start, start + length), axis).reshape(reference.shape)
                    yield Hypothesis(id, f"{text}; the reference has {other} there", made=made, wanted=reference)


def _of_a_value(evidence: Evidence, name: str) -> tuple[str, str]:
    finding = getattr(evidence, "finding", None)
    if finding is not None and finding.uncalled:
        return "missing-operation", f"the port hands on {name}, and never calls {finding.uncalled}"
    if name.startswith(("the output of", "the input of")):
        return "missing-operation", f"the port hands on {name} as it is"
    return "wrong-operand", f"the port takes {name}"


def _is_repeated(evidence: ModuleEvidence) -> bool:
    near = evidence.finding.near if evidence.finding else None
    calls = [call for call in evidence.modules if "#" in call]
    return bool(calls) or bool(near and "#" in near)
