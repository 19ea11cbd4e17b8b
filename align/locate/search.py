"""Asking both sides' processes, after a red verdict, where the difference is."""

import tempfile
from pathlib import Path

from align import steps as step_modules
from align.compare.verdict import Verdict
from align.locate.divergence import Divergence
from align.locate.modules import locate
from align.pipeline import TWIN, Recorder
from align.record.store import Store


def divergences(recorder: Recorder, result: Verdict) -> list[Divergence]:
    """Every independent difference of the red steps that have a model to replay, in the order of dependence."""
    found: list[Divergence] = []
    seen: set[str] = set()
    for step in result.steps:
        if step or step.step not in step_modules.REPLAYABLE:
            continue
        for divergence in _replayed(recorder, step.step):
            # What is wrong in evaluation is wrong in training too, and is told once.
            if divergence.module not in seen:
                seen.add(divergence.module)
                found.append(divergence)
    return found


def _replayed(recorder: Recorder, step: str) -> list[Divergence]:
    with tempfile.TemporaryDirectory(dir=recorder.options.folder, prefix=".partial-replay-") as name:
        places = {
            side: recorder.process(side).request("replay", run=f"{side}-{TWIN}", step=step, folder=name)["places"]
            for side in ("torch", "paddle")
        }
        folder = Path(name)
        return locate(step, Store(folder, f"{step}-torch"), Store(folder, f"{step}-paddle"), places)
