"""Within a module that is wrong, the operation that is: by the values of both sides' traces on the same inputs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from align.locate.divergence import Divergence, Where
from align.locate.gradients import first_divergent_backward
from align.locate.match import Values, first_divergent
from align.locate.modules import Finding
from align.record.source import next_statement
from align.record.store import Store
from align.record.trace import Operation

Places = Mapping[str, Mapping[str, Any]]


def refine(
    divergence: Divergence, finding: Finding, values: Mapping[str, Values], replays: Mapping[str, Store], places: Places
) -> Divergence:
    """The same divergence with the operation's own line on either side, where the traces show one."""
    if finding.uncalled:
        call, built = places["torch"][finding.uncalled]["call"], places["torch"][finding.uncalled]["built"]
        reference = Where(**call, built=built) if call else divergence.reference
        return replace(divergence, port=_after_its_neighbour(finding, places) or divergence.port, reference=reference)
    lines = {}
    for side, other, before in (("paddle", "torch", divergence.port), ("torch", "paddle", divergence.reference)):
        ours, theirs = values[side], values[other]
        if finding.backward:
            operation = first_divergent_backward(ours, theirs, finding, replays[side], replays[other])
        else:
            array = replays[side].get(finding.tensor)
            operation = None if array is None else first_divergent(ours, theirs, array, {finding.owner})
            if operation is None and array is not None:
                before = _handed_on(array, replays[side], places[side], finding.owner) or before
        lines[side] = _where(operation, before, places[side], finding.owner)
    return replace(divergence, port=lines["paddle"], reference=lines["torch"])


def _where(operation: Operation | None, before: Where | None, calls: Mapping[str, Any], owner: str) -> Where | None:
    if operation is None or not operation.file:
        return before
    built = calls.get(owner, {}).get("built")
    return Where(operation.file, operation.line, operation.end_line, operation.code, built)


def _handed_on(array: np.ndarray, replay: Store, calls: Mapping[str, Any], owner: str) -> Where | None:
    """The call of the child whose output was handed on as it was: something should have been done to it there."""
    for name, place in calls.items():
        if place["parent"] != owner or not place["call"]:
            continue
        outputs = [n for n in replay if n.startswith(f"{name}/out") and not n.endswith("/grad")]
        if any(np.array_equal(replay[output], array) for output in outputs):
            return Where(**place["call"], built=calls[owner]["built"])
    return None


def _after_its_neighbour(finding: Finding, places: Places) -> Where | None:
    """Where a call that the port never makes would stand: after the call that precedes it in the reference."""
    previous = None
    for name, place in places["torch"].items():
        if name == finding.uncalled:
            break
        if place["parent"] == finding.owner and name in places["paddle"]:
            previous = places["paddle"][name]["call"]
    if not previous:
        return None
    following = next_statement(previous["file"], previous["end_line"])
    line, end, code = following or (previous["line"], previous["end_line"], previous["code"])
    return Where(previous["file"], line, end, code, places["paddle"].get(finding.owner, {}).get("built"))
