"""What a replay and both sides' traces hold about one module: its boundaries, its values, and pairs of operations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from align.locate.match import Values, first_unmatched, made_by
from align.record.replay import tensor_name
from align.record.trace import Operation


def operation_pairs(
    values: Mapping[str, Values], own: Mapping[str, Sequence[str]], port: np.ndarray, reference: np.ndarray
) -> list[tuple[Operation, Operation]]:
    """Pairs of operations whose results may be each other's.

    The first that went its own way on either side; and, because one side may have an operation that the other has not,
    either with its namesakes of the other side.
    """
    ours, theirs = values["paddle"], values["torch"]
    mine = first_unmatched(ours, theirs, port, own["paddle"])
    other = first_unmatched(theirs, ours, reference, own["torch"])
    same_part = mine and other and (mine.name == other.name or goes_into_the_same(values, own, mine, other))
    found = [(mine, other)] if mine and other and same_part else []
    if mine:
        found += [(mine, op) for op in _namesakes(theirs, own["torch"], reference, mine, ours)]
    if other:
        found += [(op, other) for op in _namesakes(ours, own["paddle"], port, other, theirs)]
    return list({(a.index, b.index): (a, b) for a, b in found}.values())


def goes_into_the_same(
    values: Mapping[str, Values], own: Mapping[str, Sequence[str]], mine: Operation, other: Operation
) -> bool:
    """Whether what two operations make is read by operations of the same names: else it has another part to play."""
    ours, theirs = _readers(values["paddle"], own["paddle"], mine), _readers(values["torch"], own["torch"], other)
    return ours == theirs


def _readers(values: Values, modules: Sequence[str], operation: Operation) -> set[str]:
    made = set(operation.outputs)
    return {op.name for op in values.trace.operations if op.module in modules and made & set(op.inputs)}


def _namesakes(
    values: Values, modules: Sequence[str], array: np.ndarray, like: Operation, others: Values
) -> Iterator[Operation]:
    """Operations of the same name, on the way to the array in these calls, whose results the other trace lacks."""
    for operation in way(values, modules, array):
        if operation.name == like.name:
            made = [result for number in operation.outputs if (result := values.array(number)) is not None]
            if any(result not in others for result in made):
                yield operation


def way(values: Values, modules: Sequence[str], array: np.ndarray) -> list[Operation]:
    """The operations in these calls that lead to an array, in order."""
    todo, found = [made_by(values, array, modules)], {}
    while todo:
        operation = todo.pop()
        if operation is None or operation.index in found or operation.module not in modules:
            continue
        found[operation.index] = operation
        makers = (values.trace.values[number].operation for number in operation.inputs)
        todo += [values.trace.operations[maker] for maker in makers if maker is not None]
    return [found[index] for index in sorted(found)]


def boundaries(
    replay: Mapping[str, np.ndarray], label: str, calls: Mapping[str, Mapping[str, Any]], backward: bool
) -> dict[str, np.ndarray]:
    """What the reference's call was given, and what its children took and gave; backwards, the gradients of that."""
    found = {}
    for name in replay:
        tensor = tensor_name(name)
        if tensor is None or tensor.gradient is not backward:
            continue
        parent = calls.get(tensor.label, {}).get("parent")
        if tensor.label == label or parent == label:
            found[_told(tensor.label, tensor.what, tensor.path, tensor.gradient)] = replay[name]
    return found


def _told(label: str, what: str, path: str, gradient: bool) -> str:
    return f"{'the gradient of ' if gradient else ''}the {what}put of {label}{' ' + path.strip('/') if path else ''}"


def traced_values(values: Values, modules: Sequence[str], backward: bool) -> dict[str, np.ndarray]:
    """What the operations of these calls read and made, by what to call it; backwards, the gradients of it."""
    found: dict[str, np.ndarray] = {}
    for operation in values.trace.operations:
        if operation.module not in modules:
            continue
        for number in (*operation.inputs, *operation.outputs):
            array = values.gradient(number) if backward else values.array(number)
            if array is None or array.dtype.kind != "f" or not array.size:
                continue
            name = value_name(values, number)
            found.setdefault(f"the gradient of {name}" if backward else name, array)
    return found


def value_name(values: Values, number: int) -> str:
    """`parameter pos_embed`, `the input of norm`, `multiply at pit.py:66`."""
    value = values.trace.values[number]
    if value.operation is not None:
        operation = values.trace.operations[value.operation]
        which = operation.outputs.index(number) if len(operation.outputs) > 1 and number in operation.outputs else None
        told = f"{operation.name} at {operation.file.rpartition('/')[2]}:{operation.line}"
        return told if which is None else f"{told} ({which})"
    kind, _, name = value.name.partition("/")
    if kind == "input" and (tensor := tensor_name(name)):
        return _told(tensor.label, tensor.what, tensor.path, tensor.gradient)
    return f"{kind} {name}"


def operands(values: Values, operation: Operation) -> list[tuple[str, np.ndarray]]:
    return [
        (value_name(values, number), array)
        for number in operation.inputs
        if (array := values.array(number)) is not None and array.dtype.kind == "f"
    ]


def results(values: Mapping[str, Values], mine: Operation, other: Operation) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The results of both operations, paired in order, that are not equal."""
    made = [values["paddle"].array(number) for number in mine.outputs]
    wanted = [values["torch"].array(number) for number in other.outputs]
    for ours, theirs in zip(made, wanted, strict=False):
        if ours is not None and theirs is not None and ours.dtype.kind == theirs.dtype.kind == "f":
            yield ours, theirs


def beside(
    values: Mapping[str, Values], own: Mapping[str, Sequence[str]], mine: Operation, other: Operation
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where one side has an operation more: its result, and what the other side's next operation reads instead."""
    for side, first, second in (("paddle", mine, other), ("torch", other, mine)):
        there = values["torch" if side == "paddle" else "paddle"]
        for reader in values[side].trace.operations:
            if reader.name != second.name or reader.module not in own[side] or reader is first:
                continue
            for position, number in enumerate(reader.inputs):
                if number in first.outputs and position < len(second.inputs):
                    result, operand = values[side].array(number), there.array(second.inputs[position])
                    if result is not None and operand is not None:
                        yield (result, operand) if side == "paddle" else (operand, result)
