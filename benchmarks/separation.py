"""How far apart are correct and wrong ports? `python benchmarks/separation.py`, on a CPU; can be stopped and resumed.

    clean   pairs without a bug: several cases, seeds and threads, each run judged as `align run` does
    bugs    some of the mutants of align/mutate/catalogue.yaml in `pit_probe`, each against one reference; or all that
            `align mutate --out DIR` has tried, with `--outcomes DIR/outcomes.jsonl`
    draw    separation.json and docs/img/separation.svg from what was measured (needs the extra `bench`); a run in
            separation.json that was not measured again stays

The number of a run is its worst ratio: error in units of the reference's noise, in float64 (meaning), over all rows; of
a bug, over the rows of the step that was blamed. Exit code 1 if a clean run is not aligned or a bug is.
"""

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from align.case import STEPS
from align.cases import find
from align.cli.mutate import SHIPPED
from align.compare.judge import FACTOR
from align.mutate.outcome import Worst, worst_rows
from align.mutate.patch import read_catalogue
from align.mutate.runner import Runner, clean_run
from align.pipeline import Options, launch
from align.steps import STATISTICAL

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ROOT / "benchmarks" / "separation.json"
FIGURE = ROOT / "docs" / "img" / "separation.svg"

# Of the shipped catalogue: what has been reported of ports, and its like; in every part of one.
BUGS = """
square-weights-not-transposed float16-round-trip resize-bilinear resize-squash mean-half pixel-scale-rounded
norm-epsilon-1e-5 norm-epsilon-1e-3 norm-epsilon-1e-12 final-norm-epsilon-1e-5 last-block-tanh-gelu
gelu-constant-six-digits scale-seven-digits scale-missing heads-interleaved head-index-fastest class-token-last
pool-channels-tiled evaluation-class-head-only map-reshaped-not-transposed relu-for-gelu mean-of-batch-accuracies
accuracy-in-percent evaluation-drops-last-batch divergence-without-log-target smoothing-over-other-classes
temperature-not-squared divergence-over-batch alpha-swapped mean-over-ignored-labels softmax-twice
position-embedding-detached stage-detached adam-for-adamw everything-decays biases-and-norms-decay clip-by-value
clip-without-1e-6 adam-epsilon-1e-7 second-beta-0.99 gradients-not-cleared schedule-one-ahead cosine-after-warmup
schedule-before-update trained-in-evaluation-mode accumulated-not-averaged first-micro-batch-only
""".split()  # noqa: SIM905 - a list of 50 would take a line each

MODEL = ("weights", "forward", "metric", "loss", "bp_align")  # what takes 2 s on pit_probe; the rest takes a minute


@dataclass(frozen=True)
class Clean:
    """One pair without a bug."""

    case: str
    seed: int
    threads: int
    steps: tuple[str, ...] = MODEL

    @property
    def key(self) -> str:
        return f"{self.case}/{self.seed}/{self.threads}/{' '.join(self.steps)}"


def clean_pairs() -> list[Clean]:
    """What is measured. Neighbours of one case and thread count share their processes."""
    quick = [Clean("pit_probe", seed, 1) for seed in range(170)] + [Clean("pit_probe", seed, 2) for seed in range(30)]
    most = [Clean("pit_probe", seed, 1, STEPS[:-1]) for seed in range(206, 230)]
    whole = [Clean("pit_probe", seed, 1, STEPS) for seed in range(200, 206)]
    sizes = [f"pit_{size}{suffix}" for size in ("ti", "xs", "s", "b") for suffix in ("", "_distilled")]
    full = [Clean(name, seed, 1 + seed % 2, STEPS) for seed, name in enumerate(sizes)]
    return most + whole + quick + full


def recorded(path: Path) -> Iterator[dict]:
    if path.is_file():
        yield from map(json.loads, path.read_text().splitlines())


def append(path: Path, row: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def measure_clean(work: Path, until: float, only: str | None) -> None:
    results = work / "clean.jsonl"
    done = {row["key"] for row in recorded(results)}
    todo = [pair for pair in clean_pairs() if pair.key not in done and only in (None, pair.case)]
    for (name, threads), pairs in groupby(todo, key=lambda pair: (pair.case, pair.threads)):
        options = Options(find(name), work / "clean", MODEL, threads=threads)
        with ExitStack() as stack:
            processes = {side: stack.enter_context(launch(side, options)) for side in options.sides}
            for pair in pairs:
                if time.time() > until:
                    return
                began = time.perf_counter()
                case = replace(options.case, seed=pair.seed)
                verdict = clean_run(replace(options, case=case, steps=pair.steps), processes)
                row = {
                    "key": pair.key,
                    **asdict(pair),
                    "verdict": verdict.verdict,
                    "seconds": round(time.perf_counter() - began, 2),
                    "rows": len(verdict.rows),
                    "failing": [f"{row.step} {row.name}: {row.reason}" for row in verdict.rows if row.bad][:5],
                }
                for of in ("meaning", "precision"):
                    row[of] = {step: asdict(worst) for step, worst in worst_rows(verdict, of).items()}
                append(results, row)
                worst = max(row["meaning"].values(), key=lambda worst: worst["ratio"])
                print(f"{row['key']}: {row['verdict']}, {worst['ratio']:.2f}x noise at {worst['row']}", flush=True)


def take_outcomes(work: Path, outcomes: Path) -> None:
    """The bugs that `align mutate` has tried, instead of runs of our own; of each the last outcome."""
    tried = {row["id"]: row["outcome"] for row in recorded(outcomes)}
    results = work / "bugs.jsonl"
    results.unlink(missing_ok=True)
    for mutant in read_catalogue(SHIPPED):
        if mutant.id in tried and not mutant.equivalent:
            append(results, {"step": mutant.step, "source": mutant.source, **tried[mutant.id]})


def measure_bugs(work: Path, until: float, only: str | None) -> None:
    results = work / "bugs.jsonl"
    done = {row["id"] for row in recorded(results)}
    short, long = (
        Runner(Options(find("pit_probe"), work / "bugs", steps), work / "bugs") for steps in (STEPS[:-1], STEPS)
    )
    # The late steps first, which take longest to fill; that of the long run last.
    places = {step: number for number, step in enumerate((*STEPS[-2::-1], STEPS[-1]))}
    for mutant in sorted(read_catalogue(SHIPPED), key=lambda mutant: places.get(mutant.step or "", 0)):
        if mutant.id not in BUGS or mutant.id in done or only not in (None, mutant.id):
            continue
        if time.time() > until:
            return
        outcome = (long if mutant.step == "train_align" else short).run(mutant)
        append(results, {"step": mutant.step, "source": mutant.source, **asdict(outcome)})
        worst = outcome.worst.get(outcome.blamed_step or "")
        told = f"{worst.ratio:.3g}x noise at {worst.row}" if worst else outcome.error or "nothing is red"
        print(f"{mutant.id}: {outcome.verdict} in {outcome.blamed_step}, {told}", flush=True)


def significant(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")


def summary(work: Path) -> dict:
    """The numbers that are published."""
    before = json.loads(NUMBERS.read_text()) if NUMBERS.is_file() else {"clean": [], "bugs": []}
    clean = {_pair(row): row for row in [*before["clean"], *map(_clean_row, recorded(work / "clean.jsonl"))]}
    bugs = {row["id"]: row for row in [*before["bugs"], *map(_bug_row, recorded(work / "bugs.jsonl"))]}
    return {
        "factor": FACTOR,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "clean": list(clean.values()),
        "bugs": list(bugs.values()),
        "summary": _totals(list(clean.values()), list(bugs.values())),
    }


def _pair(row: dict) -> tuple:
    return row["case"], row["seed"], row["threads"], row["steps"]


def _clean_row(row: dict) -> dict:
    told = {name: row[name] for name in ("case", "seed", "threads", "verdict", "rows", "seconds")}
    for of in ("meaning", "precision"):
        rounding = {step: worst for step, worst in row[of].items() if step not in STATISTICAL}
        step, worst = max(rounding.items(), key=lambda item: item[1]["ratio"])
        told[of] = [significant(worst["ratio"]), step, worst["row"]]
    return told | {"steps": len(row["steps"])}


def _bug_row(row: dict) -> dict:
    told = {name: row[name] for name in ("id", "step", "blamed_step", "verdict", "seconds", "error")}
    worst = row["worst"].get(row["blamed_step"], asdict(Worst()))
    return told | {**worst, "ratio": significant(worst["ratio"])}


def _totals(clean: list[dict], bugs: list[dict]) -> dict:
    greatest = max((row["meaning"][0] for row in clean), default=0.0)
    rounding = [row["ratio"] for row in bugs if not row["exact"] and row["ratio"] and row["step"] not in STATISTICAL]
    least = min(rounding, default=0.0)
    return {
        "clean_runs": len(clean),
        "clean_rows": sum(row["rows"] for row in clean),
        "false_alarms": sum(row["verdict"] != "aligned" for row in clean),
        "clean_worst_meaning": greatest,
        "clean_worst_precision": max((row["precision"][0] for row in clean), default=0.0),
        "bugs": len(bugs),
        "bugs_missed": sum(row["verdict"] in ("aligned", None) for row in bugs),
        "bugs_right_step": sum(row["blamed_step"] == row["step"] for row in bugs),
        "bug_least": least,  # where float64 judges; bytes and counts (`exact`) are equal or not
        "orders_of_magnitude_between": round(math.log10(least / greatest), 1) if least and greatest else None,
    }


def write(numbers: dict) -> None:
    """One line a run: a change shows in a diff."""
    lines = []
    for name, value in numbers.items():
        if isinstance(value, list):
            value = "[\n  " + ",\n  ".join(json.dumps(row) for row in value) + "\n ]"
        else:
            value = json.dumps(value)
        lines.append(f' "{name}": {value}')
    NUMBERS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="clean, bugs, draw (default: all)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "separation", help="where results are kept")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start nothing after so long")
    parser.add_argument("--only", help="one case of clean, or one bug")
    parser.add_argument("--outcomes", type=Path, metavar="FILE", help="bugs: take them from a run of `align mutate`")
    arguments = parser.parse_args()
    parts = arguments.parts or ["clean", "bugs", "draw"]
    work, until = arguments.work.absolute(), time.time() + 60 * arguments.minutes
    work.mkdir(parents=True, exist_ok=True)
    if "clean" in parts:
        measure_clean(work, until, arguments.only)
    if "bugs" in parts and arguments.outcomes:
        take_outcomes(work, arguments.outcomes)
    elif "bugs" in parts:
        measure_bugs(work, until, arguments.only)
    numbers = summary(work)
    if "draw" in parts:
        from separation_figure import draw

        write(numbers)
        draw(numbers, FIGURE)
    print(json.dumps(numbers["summary"], indent=2))
    return int(bool(numbers["summary"]["false_alarms"] or numbers["summary"]["bugs_missed"]))


if __name__ == "__main__":
    sys.exit(main())
