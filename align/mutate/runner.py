"""Runs a changed copy of the port against a reference that is recorded once, and says what the verdict was."""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from align.compare.runs import Runs, compare_runs
from align.compare.verdict import StepVerdict, Verdict
from align.compare.waivers import Exceptions
from align.compare.waivers import read as read_exceptions
from align.diagnose.rows import with_row_causes
from align.errors import AlignError
from align.locate.search import divergences
from align.locate.trajectory import partings
from align.mutate.outcome import Outcome, classic_fails, meets, worst_rows
from align.mutate.patch import Mutant, Patched, patch
from align.pipeline import TWIN, Options, Recorder, launch
from align.record.manifest import Recording, remove, write_json
from align.record.process import ROOT, SideProcess
from align.sides import SIDES

LONG = "train_align"  # takes longer than all the others together
RECORDING = ("align/plan", "align/record", "align/sides", "align/steps")  # the code that a recording comes from

Recordings = Mapping[tuple[str, str], Recording]


def nothing(*_: object) -> None:
    """Progress that nobody watches."""


class Runner:
    """Mutants of one case and one choice of steps. The reference stays in `folder` and is used again by later runs."""

    def __init__(self, options: Options, folder: Path, tree: Path = ROOT) -> None:
        self._options, self._folder, self._tree = options, folder, tree
        self._reference: Options | None = None
        self._reference_process: SideProcess | None = None
        self._imports: Mapping[str, list[str]] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

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
        told = json.dumps([*settings, str(options.data), str(options.weights)])
        folders = [ROOT / folder for folder in (*RECORDING, options.case.package("torch"))]
        return hashlib.sha256(f"{told} {code_digest(*folders)}".encode()).hexdigest()[:12]

    def run(self, mutant: Mutant) -> Outcome:
        """Record the changed port, compare it with the reference, find the place if it is red, remove the copy."""
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="align-mutant-") as folder:
            try:
                outcome = self._outcome(mutant, patch(mutant, self._tree, Path(folder, "root")), Path(folder))
            except AlignError as error:
                outcome = Outcome(mutant.id, None, error=str(error))
        return replace(outcome, seconds=round(time.perf_counter() - began, 2))

    def _outcome(self, mutant: Mutant, patched: Patched, folder: Path) -> Outcome:
        touched = self._touched(mutant)
        if not touched:
            raise AlignError(f"mutant {mutant.id}: no step of {self._options.case.name} imports {mutant.file}")
        # The long run only decides about what all else lets through.
        short = tuple(step for step in touched if step != LONG)
        judged: list[StepVerdict] = []
        outcome = Outcome(mutant.id, "aligned", touched=touched)
        for steps in (short, touched[len(short) :]):
            if steps and outcome.verdict == "aligned":
                verdict = self._judge(folder, patched, mutant, steps)
                judged += verdict.steps
                outcome = self._told(outcome, verdict, patched)
        return replace(outcome, ran=tuple(step.step for step in judged), classic=classic_fails(judged))

    @staticmethod
    def _told(outcome: Outcome, verdict: Verdict, patched: Patched) -> Outcome:
        first = next((found for found in verdict.divergences if found.step == verdict.blamed_step), None)
        place = first.as_json() if first else None
        return replace(
            outcome,
            verdict=verdict.verdict,
            blamed_step=verdict.blamed_step,
            worst={**outcome.worst, **worst_rows(verdict)},
            divergence=place and within(place, patched.root, ROOT),
            divergences=len(verdict.divergences),
            line=meets(place, patched) if place else None,
        )

    def _judge(self, folder: Path, patched: Patched, mutant: Mutant, steps: tuple[str, ...]) -> Verdict:
        reference = self.reference()
        options = replace(
            self._options, out=folder, steps=steps, sides=("paddle",), roots=(patched.root,), reference=reference.folder
        )
        with Recorder(options, nothing, {"torch": self._torch()}) as recorder:
            recordings = recorder.run()
            for (side, _), recording in recordings.items():
                if side == "paddle":
                    check_imported(recording, patched, mutant)
            runs = as_runs(recordings, options.dtype)
            verdict = compare_runs(runs, read_exceptions(None, None), steps=steps)
            if verdict.verdict == "misaligned":
                recorder.open_twins()
                found = (*divergences(recorder, verdict), *partings(verdict, runs))
                verdict = replace(verdict, divergences=with_row_causes(verdict, runs, found))
            return verdict

    def _torch(self) -> SideProcess:
        """The reference's process, which stays for every mutant: it answers where a port differs."""
        if self._reference_process is None:
            self._reference_process = self._stack.enter_context(launch("torch", self.reference()))
        return self._reference_process

    def _touched(self, mutant: Mutant) -> tuple[str, ...]:
        """The steps that import the changed file: what is not imported cannot be touched by it."""
        return tuple(step for step in self._options.steps if mutant.module in self.imports()[step])

    def imports(self) -> Mapping[str, list[str]]:
        """By step, the port's modules that a process imports that records this step alone; measured once, and kept.

        Raises AlignError if the port without a bug is not aligned: nothing could then be learnt from mutants.
        """
        if self._imports is None:
            path = (
                self.reference().out / f"imports-{code_digest(self._tree / self._options.case.package('paddle'))}.json"
            )
            if not path.is_file():
                write_json(path, {step: self._imported(step) for step in self._options.steps})
            self._imports = json.loads(path.read_text())
        return self._imports

    def _imported(self, step: str) -> list[str]:
        with tempfile.TemporaryDirectory(prefix="align-clean-") as folder:
            options = replace(
                self._options,
                out=Path(folder),
                steps=(step,),
                sides=("paddle",),
                roots=(self._tree,),
                reference=self.reference().folder,
            )
            with Recorder(options, nothing) as recorder:
                recordings = recorder.run()
            verdict = compare_runs(as_runs(recordings, options.dtype), read_exceptions(None, None), steps=(step,))
            if not verdict:
                rows = "; ".join(f"{row.name}: {row.reason}" for row in verdict.rows if row.bad)
                raise AlignError(f"{options.case.name}, {step}: {verdict.verdict} without any mutant: {rows[:300]}")
            return sorted(recordings["paddle", options.dtype].manifest.code)


def within(place: Mapping[str, Any], *roots: Path) -> dict[str, Any]:
    """A divergence as JSON, with files told from the roots: the copy is gone when somebody reads it."""

    def told(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: _from(item, roots) if name == "file" else told(item) for name, item in value.items()}
        return value

    return cast(dict[str, Any], told(place))


def _from(file: str, roots: tuple[Path, ...]) -> str:
    root = next((root for root in roots if Path(file).is_relative_to(root)), None)
    return file if root is None else str(Path(file).relative_to(root))


def code_digest(*folders: Path) -> str:
    """A hash of every Python file in the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


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
