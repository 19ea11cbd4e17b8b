"""The operation whose backward is wrong: its outputs' gradients are the reference's, an input's is not."""

from collections.abc import Collection, Mapping

import numpy as np

from align.locate.match import LIMIT, Values, made_by
from align.locate.modules import Finding
from align.record.trace import Operation, Value


def first_divergent_backward(
    ours: Values,
    theirs: Values,
    finding: Finding,
    own: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    modules: Collection[str],
    parameter: str,
) -> Operation | None:
    """The operation of the finding's module call, whose code runs in `modules`, that sends back a wrong gradient.

    `own` and `other` are both sides' replays: they hold the gradients at the call's boundaries. `parameter` is the
    side's own name of the parameter whose gradient the finding is, if it is one. Inside, values are
    paired by their elements. Going backwards, the first value with a wrong gradient is the input of the operation that
    is blamed; of several that read it, the one through which nothing flows back.
    """
    trace = ours.trace
    operations = [operation for operation in trace.operations if operation.module in modules]

    def wrong(value: Value) -> bool:
        if value.origin != "input":
            return _differs(ours, theirs, value)
        name = f"{value.name.removeprefix('input/')}/grad"
        return name in other and not _agree(own.get(name), other[name])

    if finding.tensor in own and not finding.tensor.endswith("/grad") and not finding.tensor.startswith("grad/"):
        return _cut(ours, made_by(ours, own[finding.tensor], modules), modules)
    bad = {n for operation in operations for n in operation.inputs if wrong(trace.values[n])}
    for operation in reversed(operations):
        inputs = [number for number in operation.inputs if number in bad]
        if inputs and not any(number in bad for number in operation.outputs):
            lost = next((value for number in inputs if not (value := trace.values[number]).gradient), None)
            if lost and lost.operation is not None:
                return _cut(ours, trace.operations[lost.operation], modules) or operation
            readers = [reader for reader in operations if inputs[0] in reader.inputs]
            stopped = [reader for reader in readers if not any(trace.values[n].gradient for n in reader.outputs)]
            return (stopped or [_stop_after(ours, operations, operation) or operation])[0]
    return _reader(ours, operations, parameter)


def _differs(ours: Values, theirs: Values, value: Value) -> bool:
    """Whether the gradient that reached a value is not the one that reached the same value on the other side."""
    array = ours.array(value.number)
    if array is None or array.dtype.kind != "f":
        return False
    partner = theirs.number_of(array)
    if partner is None:
        return False
    found, expected = ours.gradient(value.number), theirs.gradient(partner)
    return found is not None if expected is None else not _agree(found, expected)


def _agree(found: np.ndarray | None, expected: np.ndarray) -> bool:
    if found is None or found.size != expected.size:
        return False
    difference = float(np.linalg.norm(found.reshape(-1) - expected.reshape(-1)))
    return difference <= LIMIT * float(np.linalg.norm(expected))


def _cut(values: Values, last: Operation | None, modules: Collection[str]) -> Operation | None:
    """On the way to an operation that no gradient can flow back from, the last one that one could still reach."""
    todo, seen = [last], set()
    while todo:
        operation = todo.pop(0)
        if operation is None or operation.index in seen or operation.module not in modules:
            continue
        seen.add(operation.index)
        read = [values.trace.values[number] for number in operation.inputs]
        if any(value.gradient for value in read):
            return operation
        todo += [values.trace.operations[value.operation] for value in read if value.operation is not None]
    return None


def _stop_after(values: Values, operations: list[Operation], first: Operation) -> Operation | None:
    """Where no gradient came back to what an operation made: the later one on its way through which none can flow."""
    reached = set(first.outputs)
    if any(values.gradient(number) is not None for number in reached):
        return None
    for operation in operations[operations.index(first) + 1 :]:
        if reached & set(operation.inputs):
            if not any(values.trace.values[number].gradient for number in operation.outputs):
                return operation
            reached |= set(operation.outputs)
    return None


def _reader(values: Values, operations: list[Operation], name: str) -> Operation | None:
    """The operation that reads the parameter whose gradient is wrong: the one through which nothing flows, if any."""
    numbers = {value.number for value in values.trace.values if value.name.partition("/")[2] == name}
    readers = [operation for operation in operations if numbers & set(operation.inputs)]
    stopped = [r for r in readers if not any(values.trace.values[n].gradient for n in r.outputs)]
    return next(iter(stopped or readers), None)
