"""Within a module that is wrong, the operation that is: by the values of both sides' traces on the same inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from align.locate.divergence import Divergence, Where
from align.locate.gradients import first_divergent_backward
from align.locate.match import Values, first_divergent, made_by
from align.locate.modules import Finding
from align.locate.pairs import Pairs
from align.record.replay import tensor_name
from align.record.source import (
    assigned,
    condition_of,
    default_of,
    last_return,
    loop_header,
    next_statement,
    returns_beside,
    statement_at,
    statement_like,
)
from align.record.trace import Operation

Places = Mapping[str, Mapping[str, Any]]
Replay = Mapping[str, np.ndarray]


def refine(
    divergence: Divergence, finding: Finding, values: Mapping[str, Values], replays: Mapping[str, Replay], pairs: Pairs
) -> tuple[Divergence, Operation | None]:
    """The same divergence with the operation's own line on either side, where the traces show one; and the port's."""
    places = pairs.places
    if finding.uncalled and not _stands_in(finding, values, pairs):
        missed = places["torch"][finding.uncalled]
        reference = Where(**missed["call"], built=missed["built"]) if missed["call"] else divergence.reference
        port = _after_its_neighbour(finding, pairs) or divergence.port
        return replace(divergence, port=port, reference=reference), None
    decided = _returned_elsewhere(finding, pairs)
    if decided:
        return replace(divergence, port=decided[0], reference=decided[1]), None
    if _takes_another(finding, values, replays, pairs):
        return divergence, None
    lines, found = {}, {}
    parameter = finding.tensor.removeprefix("grad/")
    for side, other, before in (("paddle", "torch", divergence.port), ("torch", "paddle", divergence.reference)):
        ours, theirs, modules = values[side], values[other], pairs.own(side, [finding.owner])
        if finding.backward:
            own_name = pairs.parameter(side, parameter)
            operation = first_divergent_backward(
                ours, theirs, finding, replays[side], replays[other], modules, own_name
            )
        else:
            array = replays[side].get(finding.tensor)
            operation = None if array is None else first_divergent(ours, theirs, array, modules)
            if (
                operation is None
                and array is not None
                and not _made_where_it_is_handed(finding, values, replays, pairs)
            ):
                before = (
                    _left_unused(replays, places, side, finding)
                    or _left_unused_inside(ours, replays["torch"], pairs, side, finding)
                    or _handed_on(array, replays["torch"], places, side, finding)
                    or before
                )
        found[side], lines[side] = operation, _where(operation, before, pairs, side, finding.owner)
    better = None
    if not finding.backward:
        better = _beside_the_operation(found["paddle"], found["torch"], values, replays["torch"])
    if better and lines["paddle"]:
        lines["paddle"] = replace(better, built=lines["paddle"].built)
    return replace(divergence, port=lines["paddle"], reference=lines["torch"]), found["paddle"]


def _beside_the_operation(
    port: Operation | None, reference: Operation | None, values: Mapping[str, Values], replay: Replay
) -> Where | None:
    """Where it is not the operation that is wrong: it was told something wrong, or another one should have followed."""
    if port is None or not port.file:
        return None
    if reference is not None and _goes_on_from(reference, port, values, replay):
        row = statement_like(port.file, port.line, _statement_of(reference, port))
    else:
        told = _told_otherwise(port, reference, values)
        row = told and (assigned(port.file, port.line, told[0]) or default_of(port.file, port.line, *told))
    return Where(port.file, *row) if row else None


def _statement_of(reference: Operation, port: Operation) -> str:
    """What the reference runs its operation by in the function of the port's own: a helper that it calls may do it."""
    here = port.stack[0].function.rpartition(".")[2] if port.stack else ""
    frame = next((frame for frame in reference.stack if frame.function.rpartition(".")[2] == here), None)
    row = statement_at(frame.file, frame.line) if frame and frame is not reference.stack[0] else None
    return row[2] if row else reference.code


def _told_otherwise(
    port: Operation, reference: Operation | None, values: Mapping[str, Values]
) -> tuple[str, Any] | None:
    """The variable that holds the argument in which an operation differs from its counterpart, and the argument.

    Of one that reads no tensor, and has no counterpart, that is a number or shape that none of the reference's has.
    """
    trace = values["torch"].trace
    known = [told for operation in trace.operations for told in operation.attributes.values()]
    known += [list(value.shape) for value in trace.values]
    for key, name in port.variables.items():
        value = port.attributes[key]
        if reference is not None and reference.name == port.name:
            if key in reference.attributes and value != reference.attributes[key]:
                return name, value
        elif not port.inputs and value not in known:
            return name, value
    return None


def _goes_on_from(reference: Operation, port: Operation, values: Mapping[str, Values], replay: Replay) -> bool:
    """Whether the reference's operation reads just what the port's has made: it is not the making that is wrong.

    Or what the port's only lays out anew, where the reference computes something of it first.
    """
    made = _arrays(port.outputs, values["paddle"])
    if _lays_out(port, values["paddle"]) and not _lays_out(reference, values["torch"]):
        made += _arrays(port.inputs, values["paddle"])
    read = _arrays(reference.inputs, values["torch"]) + list(_handed_back(reference, values["torch"], replay))
    return any(mine.shape == other.shape and np.array_equal(mine, other) for mine in made for other in read)


def _arrays(numbers: Sequence[int], values: Values) -> list[np.ndarray]:
    return [array for number in numbers if (array := values.array(number)) is not None]


def _handed_back(operation: Operation, values: Values, replay: Replay) -> Iterator[np.ndarray]:
    """What it reads of other calls, whose insides are not in the trace: the outputs of these."""
    for number in operation.inputs:
        maker = values.trace.values[number].operation
        name = "" if maker is None else f"{values.trace.operations[maker].module}/out"
        if values.array(number) is None and name in replay:
            yield replay[name]


def _lays_out(operation: Operation, values: Values) -> bool:
    """Whether it makes nothing but the elements of what it reads, in another order or shape."""
    given, made = (_arrays(numbers, values) for numbers in (operation.inputs, operation.outputs))
    return len(given) == len(made) == 1 and np.array_equal(np.sort(given[0], axis=None), np.sort(made[0], axis=None))


def _takes_another(finding: Finding, values: Mapping[str, Values], replays: Mapping[str, Replay], pairs: Pairs) -> bool:
    """Whether a child is handed another of the values that both sides make, by other lines: its call is wrong."""
    given, expected = (replays[side].get(finding.tensor) for side in ("paddle", "torch"))
    if finding.backward or not finding.near or given is None or expected is None or given not in values["torch"]:
        return False
    modules = pairs.own("paddle", [finding.owner])
    makers = [made_by(values["paddle"], array, modules) for array in (given, expected)]
    places = {maker and (maker.file, maker.line) for maker in makers}
    return None not in places and len(places) > 1


def _made_where_it_is_handed(
    finding: Finding, values: Mapping[str, Values], replays: Mapping[str, Replay], pairs: Pairs
) -> bool:
    """Whether the reference makes what it hands to a child in the very statement that calls it."""
    expected, near = replays["torch"].get(finding.tensor), pairs.places["torch"].get(finding.near or "", {})
    call = near.get("call")
    if expected is None or not call:
        return False
    maker = made_by(values["torch"], expected, pairs.own("torch", [finding.owner]))
    return maker is not None and maker.file == call["file"] and call["line"] <= maker.line <= call["end_line"]


def _returned_elsewhere(finding: Finding, pairs: Pairs) -> tuple[Where, Where] | None:
    """Where both sides have a `return`, and a condition decided otherwise on which of them a module's call came to.

    That is the port's condition, and the reference's own `return`.
    """
    port, reference = (pairs.calls[side].get(finding.owner, {}) for side in ("paddle", "torch"))
    mine, other = port.get("returned"), reference.get("returned")
    if finding.backward or finding.near or not mine or not other or mine["code"] == other["code"]:
        return None
    if mine["code"] not in returns_beside(other["file"], other["line"]):
        return None
    row, there = condition_of(mine["file"], mine["line"]), condition_of(other["file"], other["line"])
    if row is None or (there and there[2] == row[2]):
        return None
    first, last, code = row
    return Where(mine["file"], first, last, code, port.get("built")), Where(**other, built=reference.get("built"))


def _where(operation: Operation | None, before: Where | None, pairs: Pairs, side: str, owner: str) -> Where | None:
    if operation is None or not operation.file:
        return before
    built = pairs.calls[side].get(operation.module, pairs.places[side].get(owner, {})).get("built")
    return Where(operation.file, operation.line, operation.end_line, operation.code, built)


def _stands_in(finding: Finding, values: Mapping[str, Values], pairs: Pairs) -> bool:
    """Whether the module's own code does itself what the call would do that it never makes.

    Then it reads the parameters of what it does not call, or, if that has none, runs an operation of the same name.
    """
    module, inside = (finding.uncalled or "").partition("#")[0], pairs.own("paddle", [finding.owner])
    trace = values["paddle"].trace
    held = {f"parameter/{own}" for own, name in pairs.parameters["paddle"].items() if name.startswith(f"{module}.")}
    own_code = [operation for operation in trace.operations if operation.module in inside]
    if held:
        return any(trace.values[number].name in held for operation in own_code for number in operation.inputs)
    done = {operation.name for operation in values["torch"].trace.operations if operation.module == finding.uncalled}
    return any(operation.name in done for operation in own_code)


def _left_unused(replays: Mapping[str, Replay], places: Places, side: str, finding: Finding) -> Where | None:
    """The call of the child whose output the reference hands on, where the port hands on another's."""
    expected, answer = replays["torch"].get(finding.tensor), None
    if expected is None or _among_its_outputs(expected, replays["paddle"], finding):
        return None
    for name, place in places[side].items():
        if place["parent"] != finding.owner or not place["call"] or name == finding.near:
            continue
        outputs = [n for n in replays["torch"] if n.startswith(f"{name}/out") and not n.endswith("/grad")]
        if any(np.array_equal(replays["torch"][output], expected) for output in outputs):
            answer = Where(**place["call"], built=places[side][finding.owner]["built"])
    return answer


def _among_its_outputs(expected: np.ndarray, port: Replay, finding: Finding) -> bool:
    """Whether the port's module does hand this on, as another of its outputs."""
    own = tensor_name(finding.tensor)
    if own is None or own.what != "out":
        return False
    others = (n for n in port if n.startswith(f"{own.label}/out/") and n != finding.tensor and not n.endswith("/grad"))
    return any(np.array_equal(port[other], expected) for other in others)


def _left_unused_inside(values: Values, reference: Replay, pairs: Pairs, side: str, finding: Finding) -> Where | None:
    """The same for a call without a counterpart, which made what the reference hands on."""
    expected = reference.get(finding.tensor)
    maker = None if expected is None else made_by(values, expected, pairs.own(side, [finding.owner]))
    place = pairs.outermost(side, maker.module, finding.owner) if maker else None
    return Where(**place["call"], built=place["built"]) if place and place["call"] else None


def _handed_on(array: np.ndarray, reference: Replay, places: Places, side: str, finding: Finding) -> Where | None:
    """Where something should have been done to a child's output, the reference's on both sides, that was handed on.

    That is the call of the child; or, if the other side does it in a later statement to what it returns, the return.
    """
    calls, others = places[side], places["paddle" if side == "torch" else "torch"]
    for name, place in calls.items():
        if place["parent"] != finding.owner or not place["call"]:
            continue
        outputs = [n for n in reference if n.startswith(f"{name}/out") and not n.endswith("/grad")]
        if any(np.array_equal(reference[output], array) for output in outputs):
            built = calls[finding.owner]["built"]
            if finding.near is None and _ends_a_statement_before_return(others.get(name)):
                row = last_return(place["call"]["file"], place["call"]["line"])
                if calls[finding.owner].get("returned"):
                    return Where(**calls[finding.owner]["returned"], built=built)
                if row:
                    return Where(place["call"]["file"], row[0], row[1], row[2], built)
            taken, near = place["call"], (calls.get(finding.near or "") or {}).get("call")
            header = loop_header(taken["file"], taken["line"]) if taken == near else None
            if header:  # one statement calls both, one after the other: what it loops over is wrong
                return Where(taken["file"], *header, built)
            return Where(**taken, built=built)
    return None


def _ends_a_statement_before_return(place: Mapping[str, Any] | None) -> bool:
    return place is not None and bool(place["call"]) and not place["call"]["code"].startswith("return")


def _after_its_neighbour(finding: Finding, pairs: Pairs) -> Where | None:
    """Where a call that the port never makes would stand: after the call that precedes it in the reference."""
    places = pairs.places
    built = places["paddle"].get(finding.owner, {}).get("built")
    missing, previous = places["torch"][finding.uncalled or ""]["call"], None
    for name, place in places["torch"].items():
        ours = places["paddle"].get(name)
        if name == finding.uncalled or place["parent"] != finding.owner or not ours or not ours["call"]:
            continue
        if missing and place["call"] == missing:  # one statement makes both calls: what it loops over is wrong
            file, line = ours["call"]["file"], ours["call"]["line"]
            first, last, code = loop_header(file, line) or (line, line, ours["call"]["code"])
            return Where(file, first, last, code, built)
    for name, place in places["torch"].items():
        if name == finding.uncalled:
            break
        if place["parent"] == finding.owner and name in places["paddle"]:
            previous = pairs.statement(name)
    if not previous:
        return None
    following = next_statement(previous["file"], previous["end_line"])
    line, end, code = following or (previous["line"], previous["end_line"], previous["code"])
    return Where(previous["file"], line, end, code, built)
