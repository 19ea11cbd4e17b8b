"""The matrix of `align mutate` as JSON, Markdown and, where matplotlib is installed, a figure."""

import json
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from align.case import STEPS
from align.mutate.matrix import Matrix
from align.mutate.outcome import Outcome, Score, Worst
from align.mutate.patch import Mutant
from align.report.json import number

MARK = {True: "yes", False: "**no**", None: "-"}


def as_json(result: Matrix) -> dict[str, Any]:
    """The design's `{"summary", "mutants"}`."""
    return {"summary": result.summary(), "mutants": [_row(*row) for row in result.scores]}


def _row(mutant: Mutant, outcome: Outcome, held: Score) -> dict[str, Any]:
    return {
        "id": mutant.id,
        "step": mutant.step,
        "equivalent": mutant.equivalent,
        "killed": outcome.killed,
        "blamed_step": outcome.blamed_step,
        "first_divergence": outcome.divergence,
        "ratio": number(ratio(outcome)),
        "classic": outcome.classic,
        "seconds": outcome.seconds,
        "ran": list(outcome.ran),
        "error": outcome.error,
        "holds": {name: value for name, value in vars(held).items() if value is not None},
    }


def ratio(outcome: Outcome) -> float | None:
    """The worst error of the blamed step, or of all if none is, in units of noise; None where nothing rounds."""
    worst = outcome.worst.get(outcome.blamed_step or "", Worst())
    if outcome.blamed_step is None:
        return max((row.ratio for row in outcome.worst.values() if not row.exact), default=None)
    return None if worst.exact or not worst.ratio else worst.ratio


def markdown(result: Matrix) -> str:
    """The matrix as a page: the sums, a table by step, the misses with what is missing, the equivalents' proofs."""
    summary, scores = result.summary(), result.scores
    lines = [
        "# Mutants: known bugs put into the port, one at a time",
        "",
        "Made by `align mutate --markdown docs/mutants.md`. Each row is a copy of the port with one bug, run for real "
        "against a reference that is recorded once.",
        "",
        "| what | right | of |",
        "|---|---|---|",
        f"| detected | {summary['killed']} | {summary['mutants']} |",
        f"| step | {summary['step_right']} | {summary['mutants']} |",
        *(
            f"| {part} | {summary[f'{part}_right']} | {summary[f'{part}_total']} |"
            for part in ("module", "line", "cause")
        ),
        f"| equivalent mutants flagged | {summary['flagged_equivalent']} | {summary['equivalent']} |",
        f"| could not be tried | {summary['errors']} | {len(scores)} |",
        "",
        _classic(scores),
        "",
    ]
    for step in STEPS:
        rows = [row for row in scores if row[0].step == step and not row[0].equivalent]
        if rows:
            lines += [f"## {step}", "", *_table(rows), ""]
    lines += _misses(scores) + _equivalents(scores)
    return "\n".join(lines).rstrip() + "\n"


def _classic(scores: list[tuple[Mutant, Outcome, Score]]) -> str:
    told = {False: (0, 0), True: (0, 0)}  # by whether they are equivalent: failed, and all
    for mutant, outcome, _ in scores:
        if outcome.classic is not None:
            failed, judged = told[mutant.equivalent]
            told[mutant.equivalent] = failed + outcome.classic, judged + 1
    (fails, judged), (alarms, equivalent) = told[False], told[True]
    alike = f", and {alarms} of the {equivalent} equivalent ones" if equivalent else ""
    return (
        f"`reprod_log`'s rule (mean absolute difference of the headline arrays at most 1e-6, evaluation mode, steps "
        f"that ran; arrays that it fails without a bug are left out) fails {fails} of {judged}{alike}."
    )


def _table(rows: list[tuple[Mutant, Outcome, Score]]) -> list[str]:
    head = "| mutant | detected in | module | line | cause | x noise | reprod_log | s |"
    return [head, "|---|---|---|---|---|---|---|---|", *(_line(*row) for row in rows)]


def _line(mutant: Mutant, outcome: Outcome, held: Score) -> str:
    place = outcome.divergence or {}
    port = place.get("port") or {}
    where = f"{Path(port['file']).name}:{port['line']}" if port else "-"
    far = ratio(outcome)
    cells = (
        f"`{mutant.id}`",
        outcome.blamed_step or (f"error: {outcome.error}" if outcome.error else "**not detected**"),
        f"{_code(place.get('module'))}{_wrong(held.module)}",
        f"{where}{_wrong(held.line)}",
        f"{_code(outcome.cause)}{_wrong(held.cause)}",
        "-" if far is None else f"{far:.2g}",
        {True: "fails", False: "passes", None: "-"}[outcome.classic],
        f"{outcome.seconds:.1f}",
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _code(text: str | None) -> str:
    return f"`{text}`" if text else "-"


def _wrong(held: bool | None) -> str:
    return " (wrong)" if held is False else ""


def _misses(scores: list[tuple[Mutant, Outcome, Score]]) -> list[str]:
    lines = []
    for mutant, outcome, held in scores:
        parts = [name for name, value in vars(held).items() if value is False]
        if parts:
            expected = ", ".join(f"{name} {value}" for name, value in mutant.expect.items())
            found = (
                outcome.error or f"{outcome.blamed_step}, {(outcome.divergence or {}).get('module')}, {outcome.cause}"
            )
            lines.append(f"- `{mutant.id}`: {', '.join(parts)}; expected step {mutant.step}, {expected}; found {found}")
    return ["## Misses", "", *(lines or ["None."]), ""]


def _equivalents(scores: list[tuple[Mutant, Outcome, Score]]) -> list[str]:
    rows = [(mutant, outcome) for mutant, outcome, _ in scores if mutant.equivalent]
    if not rows:
        return []
    lines = [f"| `{m.id}` | {o.verdict or o.error} | {_far(ratio(o))} | {m.why} |" for m, o in rows]
    return [
        "## Equivalent changes, which must stay green",
        "",
        "| change | verdict | x noise | why |",
        "|---|---|---|---|",
        *lines,
    ]


def _far(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def figure(result: Matrix, path: Path) -> None:
    """Each mutant's error in units of noise, by step, beside the equivalent ones; logarithmic. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups: dict[str, list[float]] = {name: [] for name in (*STEPS, "equivalent")}
    for mutant, outcome, _ in result.scores:
        far = ratio(outcome)
        if far:
            groups["equivalent" if mutant.equivalent else mutant.step].append(far)
    shown: Mapping[str, list[float]] = {name: values for name, values in groups.items() if values}
    drawing, axes = pyplot.subplots(figsize=(8, 0.5 + 0.4 * len(shown)))
    for height, (name, values) in enumerate(shown.items()):
        places: Counter[int] = Counter()
        for value in sorted(values):
            places[round(value)] += 1
            axes.plot(
                value, height, "o", color="tab:green" if name == "equivalent" else "tab:red", alpha=0.6, markersize=5
            )
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.set_xlabel("worst error of the blamed step, in units of the reference's noise (float64)")
    drawing.tight_layout()
    drawing.savefig(path)
    pyplot.close(drawing)


def write(result: Matrix, folder: Path) -> None:
    """`mutants.json`, `mutants.md` and, with matplotlib, `mutants.svg`."""
    (folder / "mutants.json").write_text(json.dumps(as_json(result), indent=1) + "\n")
    (folder / "mutants.md").write_text(markdown(result))
    if find_spec("matplotlib"):
        figure(result, folder / "mutants.svg")
