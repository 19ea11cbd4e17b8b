"""From recordings to a verdict that says where, and why."""

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from align.compare.chance import Errors, forgiven, imprecise
from align.compare.runs import Runs, compare_runs
from align.compare.verdict import Verdict
from align.compare.waivers import Exceptions
from align.diagnose.rows import with_row_causes
from align.errors import AlignError
from align.locate.search import divergences
from align.locate.trajectory import partings
from align.pipeline import TWIN, Options, Recorder
from align.record.lock import exclusive
from align.record.manifest import Recording
from align.record.noise import RUNS
from align.record.process import Served
from align.report import classic
from align.report import json as json_report
from align.report.details import details
from align.report.staged import staged
from align.sides import SIDES

Recordings = Mapping[tuple[str, str], Recording]


def judged(
    recorder: Recorder,
    recordings: Recordings,
    exceptions: Exceptions,
    fixed: float | None = None,
) -> tuple[Runs, Verdict]:
    """Compare what was recorded. Of a red verdict both sides' processes, if they run, are asked where and why."""
    options = recorder.options  # with the port's parameters found, where that was asked for
    twins = (recordings.get((side, TWIN)) if options.dtype != TWIN else None for side in SIDES)
    runs = Runs(*(recordings[side, options.dtype] for side in SIDES), *twins)
    result = compare_runs(runs, exceptions, fixed, options.steps, options.case.mapping)
    if runs.reference_twin and fixed is None and "paddle" in options.sides:
        result = forgiven(result, _asked_again(recorder, runs, runs.reference_twin, imprecise(result)))
    if not result and options.sides == SIDES and options.dtype != TWIN:
        result = _placed(recorder, runs, result)
    return runs, result


def _placed(recorder: Recorder, runs: Runs, result: Verdict) -> Verdict:
    """The verdict with the places and causes of what differs. A search that fails leaves it as it is, and is noted."""
    try:
        found = (*divergences(recorder, result), *partings(result, runs))
        return replace(result, divergences=with_row_causes(result, runs, found))
    except Exception as error:
        if not isinstance(error, AlignError):
            traceback.print_exc()
        told = f"the search for the place failed, the verdict stands: {type(error).__name__}: {error}"
        return replace(result, notes=(*result.notes, told))


def _asked_again(recorder: Recorder, runs: Runs, truth: Recording, steps: Iterable[str]) -> dict[str, list[Errors]]:
    """Errors of the port's perturbed runs of these steps, as many as the reference had."""
    port, dtype = recorder.process("paddle"), recorder.options.dtype
    asked: dict[str, Any] = {"run": f"paddle-{dtype}", "dtype": dtype, "reference": str(runs.reference.folder)}
    return {
        step: [
            port.request("errors", step=step, truth=str(truth.folder), seed=seed, **asked)["errors"]
            for seed in range(1, RUNS + 1)
        ]
        for step in steps
    }


def reported(
    options: Options,
    exceptions: Exceptions,
    *,
    fixed: float | None = None,
    keep: str = "full",
    logs: bool = True,
    record: Callable[[Recorder], Recordings] = Recorder.run,
    processes: Mapping[str, Served] | None = None,
) -> Verdict:
    """Record, compare, look for the place, and write every report into the options' folder.

    `keep` is `full` or `summary`; `logs`: whether the classic files and logs are among them. `record` runs the
    recorder, and may show its progress; `processes` are sides that run already.
    """
    with exclusive(options.out), staged(options.out) as reports:
        with Recorder(options, lambda *_: None, processes) as recorder:
            recordings = record(recorder)
            runs, result = judged(recorder, recordings, exceptions, fixed)
            for step in result.steps if logs else ():
                classic.write(recorder, step, {"torch": runs.reference, "paddle": runs.port}, reports)
        more = details(runs, json_report.rows_of(result))  # while the tensors are there
        if keep == "summary":
            shown = result.around_first_difference()
            for (side, _), recording in recordings.items():
                if side in options.sides:  # an earlier recording is there for the runs to come
                    recording.thin(shown)
        json_report.write(result, reports, more)
    return result
