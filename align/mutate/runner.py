"""Runs a changed copy of the port against a reference that is recorded once, and says what the verdict was."""

import hashlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

from align.compare.runs import compare_runs
from align.compare.verdict import Verdict
from align.compare.waivers import Exceptions
from align.errors import AlignError
from align.mutate.attempt import Attempt, as_runs, nothing
from align.mutate.outcome import Outcome, classic_failing, meets, worst_rows
from align.mutate.patch import Mutant, Patched, patch
from align.mutate.reached import changed_functions, touches
from align.mutate.remembered import Remembered
from align.pipeline import Options, Recorder, launch
from align.record.manifest import Recording, remove, write_json
from align.record.process import ROOT, SideProcess

LIMIT = 600.0  # seconds after which a mutant is taken to hang; a whole run of the largest case takes half of that
RECORDING = ("align/plan", "align/record", "align/sides", "align/steps")  # the code that a recording comes from


class Runner:
    """Mutants of one case and one choice of steps. The reference stays in `folder` and is used again by later runs."""

    def __init__(self, options: Options, folder: Path, tree: Path = ROOT, limit: float = LIMIT) -> None:
        self._options, self._folder, self._tree, self._limit = options, folder, tree, limit
        self._reference: Options | None = None
        self._remembered: Remembered | None = None
        self._process: SideProcess | None = None
        self._clean: dict[str, Any] | None = None
        self._stack = ExitStack()
        self._own = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="align-runner-")))

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
        touched = self._touched(mutant, patched)
        if not touched:
            raise AlignError(f"mutant {mutant.id}: no step of {self._options.case.name} imports {mutant.file}")
        options, port = self._port(folder, touched, patched.root), self._port_process()
        watch = threading.Timer(self._limit, port.kill_copy)
        watch.start()
        try:
            with port.copied(options.roots):
                judged = Attempt(options, {"torch": self._torch(), "paddle": port}).judge()
        except AlignError as error:
            if watch.is_alive():
                raise
            raise AlignError(f"mutant {mutant.id}: ended after {self._limit:g} s ({error})") from None
        finally:
            watch.cancel()
        check_imported(judged.port, patched, mutant)
        return self._told(Outcome(mutant.id, None, touched=touched), judged.verdict, patched)

    def _port(self, folder: Path, steps: tuple[str, ...], root: Path) -> Options:
        """Options by which the port that lies in `root` is recorded in `folder`, against the kept reference."""
        kept = self.reference().folder
        return replace(self._options, out=folder, steps=steps, sides=("paddle",), roots=(root,), reference=kept)

    def _torch(self) -> SideProcess:
        """The reference, which answers where a port differs: the same for every mutant."""
        if self._remembered is None:
            answers = self.reference().out / "answers"
            answers.mkdir(exist_ok=True)
            made = Remembered(answers, lambda: launch("torch", replace(self.reference(), out=self._own)))
            self._remembered = self._stack.enter_context(made)
        return self._remembered

    def _port_process(self) -> SideProcess:
        """The port's process, of which each mutant gets a copy: the framework is imported, the port is not."""
        if self._process is None:
            self._process = self._stack.enter_context(launch("paddle", replace(self._options, out=self._own)))
            self._process.request("environment")
        return self._process

    def _touched(self, mutant: Mutant, patched: Patched) -> tuple[str, ...]:
        """The steps that enter what was changed, or, if none does, those that import the file.

        What is not imported, or never entered, cannot be touched.
        """
        importing = [step for step in self._options.steps if mutant.module in self.reached()[step]]
        changed = changed_functions((self._tree / mutant.file).read_text(), patched.file.read_text())
        entering = [step for step in importing if touches(changed, self.reached()[step][mutant.module])]
        return tuple(entering or importing)

    def reached(self) -> Mapping[str, Mapping[str, list[str] | None]]:
        """By step and by module of the port that a process imports that records this step alone, what it enters of it.

        None is all.
        """
        return cast(Mapping[str, Mapping[str, list[str] | None]], self._without_bug()["steps"])

    def _without_bug(self) -> dict[str, Any]:
        """What the port does without a bug, step by step. Measured once, and kept.

        Raises AlignError if it is not aligned: nothing could then be learnt from mutants.
        """
        if self._clean is None:
            digest = code_digest(self._tree / self._options.case.package("paddle"))
            path = self.reference().out / f"clean-{digest}.json"
            if not path.is_file():
                write_json(path, self._measured())
            self._clean = json.loads(path.read_text())
            self._port_process().request("preload", modules=self._clean["preload"])
        return self._clean

    def _measured(self) -> dict[str, Any]:
        """`steps`: see `reached`. `preload`: what else is imported, which a mutant can find there.

        `classic`: the headline arrays that reprod_log's rule fails in it.
        """
        port, package = self._port_process(), self._options.case.package("paddle")
        steps: dict[str, dict[str, list[str] | None]] = {}
        others: set[str] = set()
        classic: list[tuple[str, str]] = []
        for step in self._options.steps:
            with tempfile.TemporaryDirectory(prefix="align-clean-") as folder, port.copied((self._tree,)):
                port.request("follow")
                options = self._port(Path(folder), (step,), self._tree)
                judged = Attempt(options, {"torch": self._torch(), "paddle": port}).judge()
                told = port.request("reached", package=package)
            if not judged.verdict:
                rows = "; ".join(f"{row.name}: {row.reason}" for row in judged.verdict.rows if row.bad)
                seen = f"{judged.verdict.verdict} without any mutant: {rows[:300]}"
                raise AlignError(f"{self._options.case.name}, {step}: {seen}")
            classic += classic_failing(judged.verdict.steps)
            others.update(told["modules"])
            entered = told["entered"]
            steps[step] = {name: (entered or {}).get(name) for name in sorted(judged.port.manifest.code)}
        mine = (*steps.values(),)
        preload = sorted(n for n in others if n.partition(".")[0] != package and n not in chain.from_iterable(mine))
        return {"steps": steps, "preload": preload, "classic": classic}

    def _told(self, outcome: Outcome, verdict: Verdict, patched: Patched) -> Outcome:
        """The outcome with what the verdict says."""
        first = next((found for found in verdict.divergences if found.step == verdict.blamed_step), None)
        place = first.as_json() if first else None
        anyhow = {(step, name) for step, name in self._without_bug()["classic"]}
        return replace(
            outcome,
            verdict=verdict.verdict,
            blamed_step=verdict.blamed_step,
            worst=worst_rows(verdict),
            divergence=place and within(place, patched.root, ROOT),
            divergences=len(verdict.divergences),
            line=meets(place, patched) if place else None,
            ran=tuple(step.step for step in verdict.steps),
            classic=bool(set(classic_failing(verdict.steps)) - anyhow),
        )


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
    """A hash of every Python and TOML file in the folders (rules of the harness are TOML), hidden folders aside."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((*folder.rglob("*.py"), *folder.rglob("*.toml"))):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
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


def clean_run(options: Options, processes: Mapping[str, SideProcess]) -> Verdict:
    """Both sides as they are, through processes that run already; the recordings are removed afterwards."""
    with Recorder(options, nothing, processes) as recorder:
        recordings = recorder.run()
    verdict = compare_runs(as_runs(recordings, options.dtype), Exceptions())
    for recording in recordings.values():
        remove(recording.folder)
    return verdict
