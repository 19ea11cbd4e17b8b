"""A whole catalogue, several mutants at a time; what was done stays when it is stopped."""

import hashlib
import json
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from align.case import STEPS
from align.cases import files, find
from align.mutate.outcome import Outcome, Score, from_json, score
from align.mutate.patch import Mutant
from align.mutate.runner import Runner, code_digest
from align.pipeline import Options
from align.record.process import ROOT

Told = Callable[[Mutant, Outcome], None]


@dataclass(frozen=True)
class Matrix:
    """Every mutant with what was seen of it. `seconds`: of the whole run, on `jobs` workers, reference included."""

    rows: tuple[tuple[Mutant, Outcome], ...]
    seconds: float
    jobs: int

    @property
    def scores(self) -> list[tuple[Mutant, Outcome, Score]]:
        return [(mutant, outcome, score(mutant, outcome)) for mutant, outcome in self.rows]

    def summary(self) -> dict[str, float]:
        """The counts of `align mutate --json`; equivalent mutants stand apart, errors are no kills."""
        scores = self.scores
        real = [(mutant, outcome, held) for mutant, outcome, held in scores if not mutant.equivalent]
        same = [(mutant, outcome) for mutant, outcome, _ in scores if mutant.equivalent]
        counts: dict[str, float] = {
            "mutants": len(real),
            "killed": sum(outcome.killed for _, outcome, _ in real),
            "equivalent": len(same),
            "flagged_equivalent": sum(outcome.killed for _, outcome in same),
            "step_right": sum(held.step is True for *_, held in real),
        }
        for part in ("module", "line", "cause"):
            judged = [getattr(held, part) for *_, held in real if getattr(held, part) is not None]
            counts |= {f"{part}_right": sum(judged), f"{part}_total": len(judged)}
        return counts | {"errors": sum(outcome.error is not None for _, outcome, _ in scores), "seconds": self.seconds}

    @property
    def exit_code(self) -> int:
        """2 if a mutant could not be tried, 1 if an expectation fails."""
        scores = self.scores
        if any(outcome.error for _, outcome, _ in scores):
            return 2
        return 0 if all(held.holds for *_, held in scores) else 1


def run(mutants: Sequence[Mutant], folder: Path, jobs: int, told: Told, tree: Path = ROOT) -> Matrix:
    """Try every mutant, `jobs` at a time; those that `folder` has outcomes of, of the same code, are not run again.

    folder: keeps the references and `outcomes.jsonl`. told(mutant, outcome) is called as each is done.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    kept = _Kept(folder / "outcomes.jsonl", tree)
    done = {mutant.id: outcome for mutant in mutants if (outcome := kept.get(mutant))}
    for mutant in mutants:
        if mutant.id in done:
            told(mutant, done[mutant.id])
    for case in dict.fromkeys(mutant.case for mutant in mutants if mutant.id not in done):
        todo = [mutant for mutant in mutants if mutant.case == case and mutant.id not in done]
        for mutant, outcome in tried(todo, _options(case, folder), folder, jobs, tree):
            kept.add(mutant, outcome)
            done[mutant.id] = outcome
            told(mutant, outcome)
    rows = tuple((mutant, done[mutant.id]) for mutant in mutants)
    return Matrix(rows, round(time.perf_counter() - began, 1), jobs)


def _options(case: str, folder: Path) -> Options:
    found = find(case)
    return Options(found, folder, tuple(s for s in STEPS if s in found.steps), roots=files.roots(case))


def tried(
    mutants: Sequence[Mutant], options: Options, folder: Path, jobs: int, tree: Path
) -> Iterable[tuple[Mutant, Outcome]]:
    """Outcomes as they come, `jobs` at a time. The long ones first: at the end no worker waits for another's.

    folder: keeps the reference; options say of which case and which steps.
    """
    with ExitStack() as stack:
        runners = [stack.enter_context(Runner(options, folder, tree)) for _ in range(min(jobs, len(mutants)))]
        runners[0].reached()  # the reference, and the clean port, before the workers need them at the same time
        free: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in runners:
            free.put(runner)

        def one(mutant: Mutant) -> tuple[Mutant, Outcome]:
            runner = free.get()
            try:
                return mutant, runner.run(mutant)
            finally:
                free.put(runner)

        pool = ThreadPoolExecutor(len(runners))
        stack.callback(pool.shutdown, cancel_futures=True)  # stopped: what runs is waited for, the rest is not begun
        late_first = sorted(mutants, key=lambda mutant: STEPS.index(mutant.step or STEPS[-1]), reverse=True)
        for future in as_completed([pool.submit(one, mutant) for mutant in late_first]):
            yield future.result()


class _Kept:
    """Outcomes on disk, one JSON line each, by mutant and by all the code that they depend on."""

    def __init__(self, path: Path, tree: Path) -> None:
        self._path, self._tree = path, tree
        self._codes: dict[tuple[str, str], str] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):  # one that was being written when the run was stopped has no end
                    row = json.loads(line)
                    self._rows[row["key"]] = row["outcome"]

    def _key(self, mutant: Mutant) -> str:
        of = mutant.case, mutant.package
        if of not in self._codes:
            reference = find(mutant.case).package("torch")
            theirs = [root / reference for root in (*files.roots(mutant.case), ROOT)]
            self._codes[of] = code_digest(ROOT / "align", *theirs, self._tree / mutant.package)
        told = replace(mutant, source="", why="", expect={})  # what people read, and what is expected, changes no run
        return hashlib.sha256(f"{json.dumps(asdict(told))} {self._codes[of]}".encode()).hexdigest()[:16]

    def get(self, mutant: Mutant) -> Outcome | None:
        fields = self._rows.get(self._key(mutant))
        return from_json(fields) if fields else None

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        row = {"id": mutant.id, "key": self._key(mutant), "outcome": outcome.as_json()}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
