"""Asking both sides' processes, after a red verdict, where the difference is."""

import difflib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align import steps as step_modules
from align.compare.verdict import Verdict
from align.errors import UsageError
from align.locate.divergence import Divergence, Where
from align.locate.match import Values, first_divergent
from align.locate.modules import divergence, locate, made_by, own_error
from align.locate.operations import refine
from align.pipeline import TWIN, Recorder
from align.record.store import Store
from align.record.trace import Operation, read

TRACED = 16  # wrong modules of which the operation is looked for: more is one bug in many places


def divergences(recorder: Recorder, result: Verdict) -> list[Divergence]:
    """Every independent difference of the red steps that have a model to replay, in the order of dependence."""
    found: list[Divergence] = []
    seen: set[str] = set()
    for step in result.steps:
        if step or step.step not in step_modules.REPLAYABLE:
            continue
        for found_here in replayed(recorder, step.step):
            # What is wrong in evaluation is wrong in training too, and is told once.
            if found_here.module not in seen:
                seen.add(found_here.module)
                found.append(found_here)
    return found


@dataclass(frozen=True)
class Replayed:
    """One tensor that a module's own code makes of the reference's values, and how far the port's is off."""

    name: str
    shape: tuple[int, ...]
    error: float


def replay_module(recorder: Recorder, step: str, module: str) -> tuple[list[Replayed], list[Divergence]]:
    """What one module's own code makes, with the port's own error, and the divergence if it is wrong.

    That is its outputs and what it hands to its children, and backwards the gradients of its inputs, of its children's
    outputs and of its parameters. Of unlike module trees there is only the divergence.

    Raises UsageError for a module that the reference never calls.
    """
    tensors: list[Replayed] = []

    def look(replays: Mapping[str, Store], places: Mapping[str, Mapping[str, Any]]) -> None:
        if module not in places["torch"]:
            near = difflib.get_close_matches(module, places["torch"], 3)
            raise UsageError(f"--replay {module}: no such module call; near: {', '.join(near) or 'none'}")
        if not _alike(places):
            return  # there is no boundary of one module on both sides
        for name, array in replays["torch"].items():
            if name in replays["paddle"] and made_by(name, places["torch"]) == module:
                tensors.append(Replayed(name, array.shape, own_error(replays["paddle"][name], array)))

    found = replayed(recorder, step, look)
    return tensors, [divergence for divergence in found if divergence.module == module]


def replayed(recorder: Recorder, step: str, look: Callable[..., None] | None = None) -> list[Divergence]:
    """Every wrong module of a step; `look` is shown both sides' replays and calls before they are gone."""
    with tempfile.TemporaryDirectory(dir=recorder.options.folder, prefix=".partial-replay-") as name:
        folder = Path(name)

        def both(operation: str, **arguments: Any) -> dict[str, Mapping[str, Any]]:
            """The reference first: the port's replay reads what it leaves."""
            return {
                side: recorder.process(side).request(
                    operation, run=f"{side}-{TWIN}", step=step, folder=name, **arguments
                )
                for side in ("torch", "paddle")
            }

        places = {side: answer["places"] for side, answer in both("replay").items()}
        replays = {side: Store(folder, f"{step}-{side}") for side in places}
        if look:
            look(replays, places)
        if not _alike(places):
            return _by_value_alone(both, folder, step, places)
        findings = locate(replays["torch"], replays["paddle"], places)
        found = [divergence(step, finding, places) for finding in findings]
        if not findings:
            return []
        wanted = [call for finding in findings[:TRACED] for call in (finding.owner, finding.uncalled) if call]
        both("trace", modules=wanted)
        values = {
            side: Values(read(folder, f"{step}-{side}-trace"), Store(folder, f"{step}-{side}-trace")) for side in places
        }
        traced = zip(found[:TRACED], findings, strict=False)
        return [*(refine(d, finding, values, replays, places) for d, finding in traced), *found[TRACED:]]


def _alike(places: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the two module trees can be replayed on each other: calls of one name stand under parents of one name."""
    common = places["torch"].keys() & places["paddle"].keys()
    functions_only = len(places["torch"]) == len(places["paddle"]) == 1
    return (len(common) > 1 or functions_only) and all(
        places["torch"][n]["parent"] == places["paddle"][n]["parent"] for n in common
    )


def _by_value_alone(
    both: Callable[..., Any], folder: Path, step: str, places: Mapping[str, Mapping[str, Any]]
) -> list[Divergence]:
    """Unlike module trees: both sides run freely, and the first operation that goes its own way is looked for by value.

    What lies downstream of it is not seen.
    """
    both("trace", modules=["*"], forced=False)
    names = {side: f"{step}-{side}-trace" for side in ("torch", "paddle")}
    values = {side: Values(read(folder, name), Store(folder, name)) for side, name in names.items()}
    last = values["paddle"].last_result()
    if last is None or last in values["torch"]:
        return []
    port = first_divergent(values["paddle"], values["torch"], last)
    theirs = values["torch"].last_result()
    reference = None if theirs is None else first_divergent(values["torch"], values["paddle"], theirs)
    if port is None:
        return []
    what = f"{port.name}: the first value that the reference does not have"
    return [
        Divergence(
            step, port.module, what, float("inf"), _line(port, places["paddle"]), _line(reference, places["torch"])
        )
    ]


def _line(operation: Operation | None, calls: Mapping[str, Any]) -> Where | None:
    if operation is None:
        return None
    built = calls.get(operation.module, {}).get("built")
    return Where(operation.file, operation.line, operation.end_line, operation.code, built)
