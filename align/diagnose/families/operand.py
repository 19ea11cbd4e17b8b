"""The same operation of another operand, or of the same in another order: the result is recomputed."""

from collections.abc import Iterator, Sequence

import numpy as np

from align.diagnose.arrays import equal, varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.families import permuted, rounded, scaled, shifted, sliced
from align.diagnose.families.function import fitting
from align.diagnose.functions import Form, Pairing, paired
from align.diagnose.modules import ModuleEvidence
from align.diagnose.prove import proven
from align.locate.divergence import Where
from align.locate.match import Values

RANK = 62
MOST = 24  # values that are tried in the place of an operand
RELATIONS = (rounded, scaled, permuted, sliced, shifted)  # what a wrong operand may be of the right one

Named = tuple[str, np.ndarray]


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, ModuleEvidence) or not evidence.pair or evidence.gradient:
        return
    port, reference = evidence.pair
    if not varied(port) or not varied(reference):
        return
    read = [(name, array) for name, array in evidence.inputs if array.dtype.kind == "f" and np.isfinite(array).all()]
    if len(read) == 1:
        yield from _of_one(evidence, read[0], port, reference)
    elif len(read) in (2, 3):
        term = read[2][1] if len(read) == 3 else 0.0
        if np.ndim(term) < 2:
            yield from _of_two(evidence, read[:2], port, reference, term)


def _of_one(evidence: ModuleEvidence, read: Named, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    name, operand = read
    form = fitting(operand, port)
    if form is None and operand.shape == port.shape:
        factor = float(np.vdot(port, operand) / (np.vdot(operand, operand) or 1))
        form = Form("scaling", lambda x: factor * x)
        form = form if equal(form.apply(operand), port) else None
    if form is None:
        return
    for right, value in _candidates(evidence, operand, name):
        made = form.apply(value)
        if equal(made, reference):
            yield from _wrong(evidence, (name, operand), (right, value), made, reference)


def _of_two(
    evidence: ModuleEvidence, read: Sequence[Named], port: np.ndarray, reference: np.ndarray, term: np.ndarray | float
) -> Iterator[Hypothesis]:
    (first, a), (second, b) = read
    ways = [(pairing, swap) for swap in (False, True) for pairing, made in _paired(a, b, swap, port.shape)
            if equal(made + term, port)]  # fmt: skip
    if not ways:
        return
    for swap in (False, True):
        for pairing, made in _paired(a, b, swap, reference.shape):
            if equal(made + term, reference) and (pairing, swap) not in ways:
                yield _other_pairing(evidence, ways[0][0], pairing, made + term, reference, first, second)
    for pairing, swap in ways[:1]:
        for wrong, operand, other, left in ((first, a, b, True), (second, b, a, False)):
            for right, value in _candidates(evidence, operand, wrong):
                one, two = (value, other) if left is not swap else (other, value)
                made = pairing.apply(one, two) + term
                if equal(made, reference):
                    yield from _wrong(evidence, (wrong, operand), (right, value), made, reference)


def _paired(a: np.ndarray, b: np.ndarray, swap: bool, shape: tuple[int, ...]) -> Iterator[tuple[Pairing, np.ndarray]]:
    return paired(b, a, shape) if swap else paired(a, b, shape)


def _other_pairing(
    evidence: ModuleEvidence,
    ours: Pairing,
    theirs: Pairing,
    made: np.ndarray,
    reference: np.ndarray,
    first: str,
    second: str,
) -> Hypothesis:
    order = ours == theirs
    matrix = "@" in ours.name and "@" in theirs.name
    if order:
        id, text = "operand-order", f"{ours} of {first} and {second} in the other order in the reference"
    else:
        weight = second.startswith("parameter")
        id = "weight-transposed" if matrix and weight else "transposed" if matrix else "wrong-operation"
        text = f"{ours} in the port, {theirs} in the reference, where a is {first} and b is {second}"
    return Hypothesis(id, text, made=made, wanted=reference, change=str(theirs))


def _candidates(evidence: ModuleEvidence, operand: np.ndarray, name: str) -> Iterator[Named]:
    found = 0
    for right, value in (*evidence.theirs, *evidence.values.items()):
        if (
            value.shape == operand.shape
            and value.dtype.kind == "f"
            and np.isfinite(value).all()
            and not np.array_equal(value, operand)
        ):
            found += 1
            if found > MOST:
                return
            yield right, value


def _wrong(
    evidence: ModuleEvidence, wrong: Named, right: Named, made: np.ndarray, reference: np.ndarray
) -> Iterator[Hypothesis]:
    """Named by what the wrong operand is of the right one, if it is anything.

    Nothing where the port has no such value at all: then the operand was made wrong, and not taken by mistake.
    """
    id, text = "wrong-operand", f"it works on {wrong[0]} in the port, on {right[0]} in the reference"
    relation = Evidence(evidence.step, wrong[0], wrong[1], right[1], numbers=evidence.numbers)
    for family in RELATIONS:
        for hypothesis in family.propose(relation):
            if proven(relation, hypothesis):
                text = f"{wrong[0]}: {hypothesis.text}"
                yield Hypothesis(hypothesis.id, text, made, reference, change=hypothesis.change)
                return
    line = None
    if _is_made_of(evidence.port_values, wrong[1], right[1]):
        id, text = "extra-operation", f"{wrong[0]} is done in the port only"
    elif _is_made_of(evidence.reference_values, right[1], wrong[1]) or _is_left_out(evidence, wrong[1], right[1]):
        id, text = "missing-operation", f"the port goes on with {wrong[0]}, the reference makes {right[0]} of it first"
    elif not _is_at_hand(evidence, right):
        return
    elif evidence.operation and not _is_read(evidence, right[1]):
        # Nothing else took it by mistake: the mistake is made here.
        operation = evidence.operation
        line = Where(operation.file, operation.line, operation.end_line, operation.code, evidence.built)
    elif permuted.QKV.search(evidence.code):
        id = "qkv-order"
    yield Hypothesis(id, text, made, reference, change=f"use {right[0]}", line=line)


def _is_at_hand(evidence: ModuleEvidence, right: Named) -> bool:
    """Whether the port could have taken a value: a parameter, or what it was given or made itself."""
    name, value = right
    given = any(array is value or np.array_equal(array, value) for _, array in evidence.inputs)
    values = evidence.port_values
    return name.startswith("parameter") or given or values is None or values.number_of(value) is not None


def _is_left_out(evidence: ModuleEvidence, wrong: np.ndarray, right: np.ndarray) -> bool:
    """Whether the call that the port never makes would have made the one of the other."""
    missed = evidence.finding.uncalled if evidence.finding else None
    given, made = (evidence.replays.get("torch", {}).get(f"{missed}/{what}") for what in ("in", "out"))
    return given is not None and made is not None and equal(given, wrong) and equal(made, right)


def _is_made_of(values: Values | None, made: np.ndarray, operand: np.ndarray) -> bool:
    """Whether an operation of a trace makes the one of the other."""
    number = values.number_of(made) if values else None
    if values is None or number is None or (index := values.trace.values[number].operation) is None:
        return False
    read = (values.array(n) for n in values.trace.operations[index].inputs)
    return any(array is not None and array.shape == operand.shape and equal(array, operand) for array in read)


def _is_read(evidence: ModuleEvidence, value: np.ndarray) -> bool:
    """Whether any of the port's operations reads a value."""
    values = evidence.port_values
    number = values.number_of(value) if values else None
    return values is None or number is None or any(number in operation.inputs for operation in values.trace.operations)
