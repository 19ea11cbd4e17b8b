"""Asking both sides' processes, after a red verdict, where the difference is."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align import steps as step_modules
from align.compare.verdict import Verdict
from align.locate.divergence import Divergence
from align.locate.match import Values
from align.locate.modules import divergence, locate
from align.locate.operations import refine
from align.pipeline import TWIN, Recorder
from align.record.store import Store
from align.record.trace import read

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


def replayed(recorder: Recorder, step: str) -> list[Divergence]:
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
        findings = locate(replays["torch"], replays["paddle"], places)
        found = [divergence(step, finding, places) for finding in findings]
        if not findings:
            return []
        both("trace", modules=[finding.owner for finding in findings[:TRACED]])
        values = {
            side: Values(read(folder, f"{step}-{side}-trace"), Store(folder, f"{step}-{side}-trace")) for side in places
        }
        traced = zip(found[:TRACED], findings, strict=False)
        return [*(refine(d, finding, values, replays, places) for d, finding in traced), *found[TRACED:]]
