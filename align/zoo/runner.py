"""Runs many cases one after another on one pair of processes; what was done stays when it is stopped."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from align.case import Case, package_of
from align.compare import waivers
from align.compare.verdict import Verdict
from align.errors import AlignError
from align.gate import judged
from align.mutate.runner import code_digest
from align.pipeline import Options, Recorder
from align.record.process import ROOT
from align.report.json import number
from align.running import Running
from align.zoo.changes import Changes

NONE = Changes()


@dataclass(frozen=True)
class Outcome:
    """What was seen of one pair.

    `ratios`: by step the worst row's meaning in units of noise; `matched_by`: how many of the port's parameters were
    found how; `error`: why nothing could be compared; `why`: what differs, as the zoo knows it; `with_change`: the
    verdict after the change that says so, None where none is known.
    """

    name: str
    verdict: str | None
    ratios: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0
    noted: int = 0
    matched_by: Mapping[str, int] = field(default_factory=dict)
    divergence: Mapping[str, Any] | None = None
    reason: str = ""
    error: str | None = None
    seconds: float = 0.0
    why: str = ""
    with_change: str | None = None

    @property
    def explained(self) -> bool:
        """Whether it is aligned, or once the known change is made."""
        return "aligned" in (self.verdict, self.with_change)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratios": {step: number(ratio) for step, ratio in self.ratios.items()}}


@dataclass(frozen=True)
class Done:
    """The outcomes in the order of the cases, and the versions of what they were run with."""

    outcomes: list[Outcome]
    versions: Mapping[str, str]


def run(
    cases: Sequence[Case],
    out: Path,
    told: Callable[[Case, Outcome], None],
    fresh: bool = False,
    changes: Changes = NONE,
    roots: tuple[Path, ...] = (),
) -> Done:
    """The outcome of every case, in their order; earlier ones in `out` of the same code and case are not run again.

    The same code is the same harness, versions of both frameworks, and Python files beside the models; `roots` are
    where import paths are looked for first.

    A pair that is not aligned, and has a change that is known to make it agree, is checked again with that.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = {} if fresh else _read(out / "outcomes.jsonl")
    answer = []
    with Running() as sides:
        versions = _versions(sides, Options(cases[0], out, cases[0].steps, roots=roots), cases) if cases else {}
        digest = f"{code_digest(ROOT / 'align', *_folders(cases, roots))} {versions}"
        for case in cases:
            told_of = f"{json.dumps(asdict(case))} {changes.key(case)} {digest}"
            key = hashlib.sha256(told_of.encode()).hexdigest()[:16]
            outcome = kept.get(key)
            if outcome is None:
                outcome = _with_change(case, out, sides, changes, roots)
                if outcome.error is None:  # what could not be run is tried again
                    with (out / "outcomes.jsonl").open("a") as file:
                        file.write(json.dumps({"key": key, "outcome": asdict(outcome)}) + "\n")
            answer.append(outcome)
            told(case, outcome)
    return Done(answer, versions)


def _versions(sides: Running, options: Options, cases: Iterable[Case]) -> dict[str, str]:
    """Of Python, of both sides' packages, and of those that the models come from."""
    told = [process.request("environment") for process in sides.of(options).values()]
    versions = {"python": told[0]["python"], **{k: v for answer in told for k, v in answer["versions"].items()}}
    for package in sorted(
        {package_of(builder) for case in cases for builder in (case.reference, case.port)} - {"align"}
    ):
        with suppress(PackageNotFoundError):  # a user's own, or Paddle, which tells its version itself
            versions.setdefault(package, version(package))
    return {name: told for name, told in versions.items() if told not in ("None", "False")}


def _folders(cases: Sequence[Case], roots: tuple[Path, ...]) -> list[Path]:
    """Where the user's models lie: beside the files of pairs, and beside files that builders are named by."""
    files = (builder.partition(":")[0] for case in cases for builder in (case.reference, case.port))
    return [*dict.fromkeys((*roots, *(Path(file).parent for file in files if file.endswith(".py"))))]


def _with_change(case: Case, out: Path, sides: Running, changes: Changes, roots: tuple[Path, ...]) -> Outcome:
    outcome = replace(_one(case, out, sides, roots), why=changes.told(case) or case.summary)
    if outcome.verdict == "aligned":
        return replace(outcome, why="")
    changed = changes.applied(case, out / "changed")
    if changed is None:
        return outcome
    again = _one(changed, out, sides, roots)
    return replace(outcome, with_change=again.verdict or again.error, seconds=outcome.seconds + again.seconds)


def _one(case: Case, out: Path, sides: Running, roots: tuple[Path, ...]) -> Outcome:
    began = time.perf_counter()
    options = Options(case, out, case.steps, roots=roots)
    try:
        with Recorder(options, lambda *_: None, sides.of(options)) as recorder:
            recordings = recorder.run()
            _, result = judged(recorder, recordings, waivers.read(None, None))
            mapping = recorder.options.case.mapping
        outcome = _outcome(case, result, mapping)
    except AlignError as error:
        outcome = Outcome(case.name, None, error=str(error))
    shutil.rmtree(options.folder, ignore_errors=True)
    return replace(outcome, seconds=round(time.perf_counter() - began, 1))


def _outcome(case: Case, result: Verdict, mapping: Mapping[str, Any]) -> Outcome:
    how = list(mapping.get("matched_by", {}).values())
    judged_rows = {
        step.step: [row for row in step.rows if row.meaning and row.verdict != "noted"] for step in result.steps
    }
    failing = [row for step in result.steps for row in step.failing]
    return Outcome(
        case.name,
        result.verdict,
        ratios={
            step: max(row.meaning.ratio for row in rows if row.meaning) for step, rows in judged_rows.items() if rows
        },
        rows=len(result.rows),
        noted=sum(row.verdict == "noted" for row in result.rows),
        matched_by={word: how.count(word) for word in dict.fromkeys(how)},
        divergence=result.divergences[0].as_json() if result.divergences else None,
        reason=f"{failing[0].name}: {failing[0].reason}" if failing else "; ".join(result.blind[:1]),
    )


def _read(path: Path) -> dict[str, Outcome]:
    if not path.is_file():
        return {}
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return {row["key"]: Outcome(**row["outcome"]) for row in map(json.loads, lines)}
