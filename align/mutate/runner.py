"""Runs a changed copy of the port against a reference that is recorded once, and says what the verdict was."""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from align.compare.runs import Runs, compare_runs
from align.compare.verdict import StepVerdict, Verdict
from align.compare.waivers import Exceptions
from align.errors import AlignError
from align.mutate.patch import Mutant, Patched, patch
from align.pipeline import TWIN, Options, Recorder
from align.record.manifest import Recording, remove
from align.record.process import ROOT, SideProcess
from align.sides import SIDES

RECORDING = ("align/plan", "align/record", "align/sides", "align/steps")  # the code that a recording comes from

Recordings = Mapping[tuple[str, str], Recording]


@dataclass(frozen=True)
class Worst:
    """The row of a step that is furthest from the truth. `ratio` is in units of noise.

    Where nothing rounds (`exact`), the unit is one ulp, or 1 for integers. `unjudged` counts the bad rows without a
    ratio: missing, of another shape, or with a NaN of their own.
    """

    ratio: float = 0.0
    row: str = ""
    measure: str = ""
    exact: bool = False
    unjudged: int = 0


@dataclass(frozen=True)
class Outcome:
    """What the gate said of one mutant. `error`: the copy could not be made or run; then there is no verdict."""

    id: str
    verdict: str | None
    blamed_step: str | None = None
    worst: Mapping[str, Worst] = field(default_factory=dict)  # by step, in meaning
    seconds: float = 0.0
    error: str | None = None

    @property
    def killed(self) -> bool:
        return self.error is None and self.verdict != "aligned"


def nothing(*_: object) -> None:
    """Progress that nobody watches."""


def worst_rows(verdict: Verdict, of: Literal["meaning", "precision"] = "meaning") -> dict[str, Worst]:
    """By step, the row with the greatest error in units of noise, in one of the two judgements; excused rows aside."""
    return {step.step: _worst(step, of) for step in verdict.steps}


def _worst(step: StepVerdict, of: str) -> Worst:
    found = Worst()
    for row in step.rows:
        judgement = None if row.verdict in ("noted", "waived") else getattr(row, of)
        if judgement is not None and judgement.ratio > found.ratio:
            found = Worst(judgement.ratio, row.name, judgement.measure, exact=judgement.limit == 0)
    return replace(found, unjudged=sum(row.bad and row.meaning is None for row in step.rows))


class Runner:
    """Mutants of one case and one choice of steps. The reference stays in `folder` and is used again by later runs."""

    def __init__(self, options: Options, folder: Path, tree: Path = ROOT) -> None:
        self._options, self._folder, self._tree = options, folder, tree
        self._reference: Options | None = None

    def reference(self) -> Options:
        """Options whose `folder` holds the reference's recordings, made now unless they are there."""
        if self._reference is None:
            made = replace(self._options, out=self._folder / f"reference-{self._key()}", sides=("torch",))
            done = made.out / "done"
            if not done.is_file():
                shutil.rmtree(made.out, ignore_errors=True)
                with Recorder(made, nothing) as recorder:
                    recorder.run()
                done.touch()
            self._reference = made
        return self._reference

    def _key(self) -> str:
        """A hash of all that the reference's recordings depend on: case, steps, settings, and the code that records."""
        options = self._options
        settings = (
            asdict(options.case),
            options.steps,
            options.dtype,
            options.threads,
            options.devices,
            options.modules,
        )
        digest = hashlib.sha256(json.dumps([*settings, str(options.data), str(options.weights)]).encode())
        for folder in (*RECORDING, options.case.package("torch")):
            for path in sorted((ROOT / folder).rglob("*.py")):
                digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def run(self, mutant: Mutant) -> Outcome:
        """Record the changed port, compare it with the reference, remove the copy."""
        reference, began = self.reference(), time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="align-mutant-") as folder:
            try:
                patched = patch(mutant, self._tree, Path(folder, "root"))
                verdict = self._judge(reference, Path(folder), patched, mutant)
            except AlignError as error:
                return Outcome(mutant.id, None, seconds=round(time.perf_counter() - began, 2), error=str(error))
            seconds = round(time.perf_counter() - began, 2)
            return Outcome(mutant.id, verdict.verdict, verdict.blamed_step, worst_rows(verdict), seconds)

    def _judge(self, reference: Options, folder: Path, patched: Patched, mutant: Mutant) -> Verdict:
        options = replace(
            self._options, out=folder, sides=("paddle",), roots=(patched.root,), reference=reference.folder
        )
        with Recorder(options, nothing) as recorder:
            recordings = recorder.run()
        for (side, _), recording in recordings.items():
            if side == "paddle":
                check_imported(recording, patched, mutant)
        return compare_runs(as_runs(recordings, options.dtype), Exceptions())


def check_imported(recording: Recording, patched: Patched, mutant: Mutant) -> None:
    """Raise AlignError unless the run imported the changed copy, and nothing of the package from anywhere else."""
    imported = recording.manifest.code
    strangers = [row["file"] for row in imported.values() if not Path(row["file"]).is_relative_to(patched.root)]
    if strangers:
        raise AlignError(
            f"mutant {mutant.id}: the run imported {strangers[0]}, which is not in the copy {patched.root}"
        )
    found = imported.get(mutant.module)
    if found is None:
        steps = " ".join(recording.manifest.steps)
        raise AlignError(f"mutant {mutant.id}: steps {steps} never import {mutant.file}: nothing was tried; add a step")
    if found["sha256"] != patched.sha256:
        raise AlignError(f"mutant {mutant.id}: {found['file']} is not the file that was written: its hash differs")


def as_runs(recordings: Recordings, dtype: str) -> Runs:
    """The recordings of both sides, paired for the comparison."""
    twins = (recordings.get((side, TWIN)) if dtype != TWIN else None for side in SIDES)
    return Runs(*(recordings[side, dtype] for side in SIDES), *twins)


def clean_run(options: Options, processes: Mapping[str, SideProcess]) -> Verdict:
    """Both sides as they are, through processes that run already; the recordings are removed afterwards."""
    with Recorder(options, nothing, processes) as recorder:
        recordings = recorder.run()
    verdict = compare_runs(as_runs(recordings, options.dtype), Exceptions())
    for recording in recordings.values():
        remove(recording.folder)
    return verdict
