"""From recordings to a verdict that says where, and why."""

from collections.abc import Mapping
from dataclasses import replace

from align.compare.runs import Runs, compare_runs
from align.compare.verdict import Verdict
from align.compare.waivers import Exceptions
from align.diagnose.rows import with_row_causes
from align.locate.search import divergences
from align.locate.trajectory import partings
from align.pipeline import TWIN, Recorder
from align.record.manifest import Recording
from align.sides import SIDES


def judged(
    recorder: Recorder,
    recordings: Mapping[tuple[str, str], Recording],
    exceptions: Exceptions,
    fixed: float | None = None,
) -> tuple[Runs, Verdict]:
    """Compare what was recorded. Of a red verdict both sides' processes, if they run, are asked where and why."""
    options = recorder.options  # with the port's parameters found, where that was asked for
    twins = (recordings.get((side, TWIN)) if options.dtype != TWIN else None for side in SIDES)
    runs = Runs(*(recordings[side, options.dtype] for side in SIDES), *twins)
    result = compare_runs(runs, exceptions, fixed, options.steps, options.case.mapping)
    if not result and options.sides == SIDES and options.dtype != TWIN:
        found = (*divergences(recorder, result), *partings(result, runs))
        result = replace(result, divergences=with_row_causes(result, runs, found))
    return runs, result
