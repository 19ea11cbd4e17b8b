"""One changed copy of the port, recorded and judged step by step, in the order of dependence, until one is red."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from align import steps
from align.case import STEPS
from align.compare.runs import Runs, compare_runs
from align.compare.verdict import StepVerdict, Verdict
from align.compare.waivers import read as read_exceptions
from align.diagnose.rows import with_row_causes
from align.locate.search import divergences
from align.locate.trajectory import partings
from align.pipeline import TWIN, Options, Recorder
from align.record import manifest
from align.record.manifest import Recording
from align.record.process import SideProcess
from align.sides import SIDES

Recordings = Mapping[tuple[str, str], Recording]


def nothing(*_: object) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Judged:
    """The steps that ran, the last of them red if one is; `verdict` has where and why. `port`: what was recorded."""

    verdict: Verdict
    port: Recording


class Attempt:
    """The port alone, against the reference that `options` name, in processes that run already."""

    def __init__(self, options: Options, processes: Mapping[str, SideProcess]) -> None:
        self._options, self._processes = options, processes

    def judge(self) -> Judged:
        """Record and compare until a step is red; then say where it went wrong.

        `bp_align` may be red in what its updates leave alone: that follows from `optim`, which is judged as well.
        """
        options = self._options
        done: list[StepVerdict] = []
        untwinned: dict[str, str] = {}
        with Recorder(options, nothing, self._processes) as recorder:
            recorder.plan, found = recorder.existing()
            folders = self._opened(recorder, found)
            for step in sorted(options.steps, key=STEPS.index):
                red = [verdict for verdict in done if not verdict]
                if red and not (step == "optim" and all(verdict.late for verdict in red)):
                    continue
                for early in self._parts(step, found):
                    runs = self._recorded(recorder, step, found, folders, early)
                    judged = compare_runs(runs, read_exceptions(None, None), steps=(step,), early=early)
                    if not judged.steps[0]:
                        break
                done.append(judged.steps[0])
                untwinned |= judged.no_twin
            verdict = replace(judged, steps=tuple(done), no_twin=untwinned)
            if verdict.verdict == "misaligned":
                verdict = _located(recorder, verdict, runs)
            return Judged(verdict, runs.port)

    def _opened(self, recorder: Recorder, found: Recordings) -> dict[str, Path]:
        options, plan = self._options, recorder.plan
        assert plan
        folders = {}
        for dtype in dict.fromkeys((options.dtype, TWIN)):
            folder = folders[dtype] = manifest.start(options.folder, options.prefix("paddle", dtype))
            recorder.open("paddle", dtype, plan, folder, found["torch", options.dtype].folder)
        return folders

    def _parts(self, step: str, found: Recordings) -> list[bool]:
        """Whether to be early: of a long step, that which is quick comes first."""
        wanted = steps.early(step)
        rows = found["torch", self._options.dtype].step(step).entries
        return [True, False] if wanted and any(map(wanted, rows)) else [False]

    def _recorded(
        self, recorder: Recorder, step: str, found: Recordings, folders: Mapping[str, Path], early: bool
    ) -> Runs:
        """One step more, in the working type and as the twin; what there is by then, on both sides."""
        process = recorder.process("paddle")
        for dtype in folders:
            if dtype == self._options.dtype or step not in steps.WITHOUT_TWIN:
                process.request("step", run=f"paddle-{dtype}", step=step, early=early)
            process.request("close", run=f"paddle-{dtype}")
        port = {("paddle", dtype): Recording(folder) for dtype, folder in folders.items()}
        return as_runs({**found, **port}, self._options.dtype)


def _located(recorder: Recorder, verdict: Verdict, runs: Runs) -> Verdict:
    """The verdict with the divergences of the step that is blamed."""
    blamed = replace(verdict, steps=tuple(step for step in verdict.steps if step.step == verdict.blamed_step))
    recorder.open_twins()
    found = (*divergences(recorder, blamed), *partings(blamed, runs))
    told = with_row_causes(blamed, runs, found)
    return replace(verdict, divergences=told)


def as_runs(recordings: Recordings, dtype: str) -> Runs:
    """The recordings of both sides, paired for the comparison."""
    twins = (recordings.get((side, TWIN)) if dtype != TWIN else None for side in SIDES)
    return Runs(*(recordings[side, dtype] for side in SIDES), *twins)
