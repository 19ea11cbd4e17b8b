"""The outcomes of many pairs as a Markdown page: a summary, and a table with a row for each pair."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from align.case import Case
from align.compare.judge import FACTOR
from align.zoo.runner import Outcome

GROUPS = {
    "Models": lambda case: case.port.startswith("paddle.vision"),
    "Optimizers and schedulers": lambda case: case.name.startswith(("optimizer_", "scheduler_")),
    "Layers, losses and functions": lambda case: True,
}
INHERENT = "deviations.toml"


def page(outcomes: Sequence[Outcome], cases: Sequence[Case], versions: Mapping[str, str], command: str) -> str:
    """The whole page; outcomes and cases in the same order."""
    pairs = list(zip(outcomes, cases, strict=True))
    grouped: dict[str, list[tuple[Outcome, Case]]] = {title: [] for title in GROUPS}
    for outcome, case in pairs:
        grouped[next(title for title, holds in GROUPS.items() if holds(case))].append((outcome, case))
    lines = [
        "# The zoo",
        "",
        "What PaddlePaddle ships against what PyTorch and torchvision ship, pair by pair, as `align check` checks it:",
        "forwards and backwards, in evaluation and in training mode, in float64 and in float32." + _unmapped(cases),
        "The page is written by one command:",
        "",
        f"    {command}",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "",
        *_summary({title: [o for o, _ in rows] for title, rows in grouped.items()}),
    ]
    for title, rows in grouped.items():
        if rows:
            lines += ["", f"## {title}", "", *_table(rows, title == "Models"), *_notes([o for o, _ in rows])]
    return "\n".join(lines) + "\n"


def _unmapped(cases: Iterable[Case]) -> str:
    return "" if any(case.mapping for case in cases) else " No pair has a mapping file."


def _summary(groups: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    yield "| | pairs | aligned | aligned with a known change | differ otherwise | could not be compared |"
    yield "|---|---|---|---|---|---|"
    for title, outcomes in groups.items():
        if outcomes:
            aligned = sum(o.verdict == "aligned" for o in outcomes)
            changed = sum(o.verdict != "aligned" and o.explained for o in outcomes)
            failed = sum(o.verdict is None and not o.explained for o in outcomes)
            rest = len(outcomes) - aligned - changed - failed
            yield f"| {title} | {len(outcomes)} | {aligned} | {changed} | {rest} | {failed} |"
    yield ""
    yield from matching([outcome for outcomes in groups.values() for outcome in outcomes])
    yield ""
    yield (
        "Ratios are the worst row's error in units of the reference's own rounding noise, in float64; up to "
        f"{FACTOR:.0f} is aligned ([verdict.md](verdict.md)). "
        "`Tensors` says how the port's parameters and buffers were found: by the reference's name, by the "
        "value of their gradients, or in order. `Noted` counts rows that differ and do not count: what is inherent in "
        f"a framework (align/compare/{INHERENT}), and inner values of a model whose results are right. Seconds say "
        "which pairs are slow, no more."
    )


def matching(outcomes: Collection[Outcome]) -> Iterator[str]:
    """How many parameters were found how, over all pairs."""
    words = dict.fromkeys(word for outcome in outcomes for word in outcome.matched_by)
    counts = {word: sum(outcome.matched_by.get(word, 0) for outcome in outcomes) for word in words}
    named = sum(1 for outcome in outcomes if outcome.matched_by and set(outcome.matched_by) <= {"name"})
    held = sum(1 for outcome in outcomes if outcome.matched_by)
    told = ", ".join(f"{count:,} by {word}" for word, count in counts.items())
    if counts:
        yield (
            f"{held} pairs have parameters, {sum(counts.values()):,} tensors in all: {told}. In {held - named} of them "
            "some names are unlike."
        )


def _table(rows: Sequence[tuple[Outcome, Case]], models: bool) -> Iterator[str]:
    yield "| pair | verdict | forward | backward | tensors | noted | with the change | s |"
    yield "|---|---|---|---|---|---|---|---|"
    for outcome, case in rows:
        name = outcome.name if models else f"{outcome.name} <br> `{_port(case)}`"
        cells = (
            name,
            f"**{outcome.verdict or 'error'}**" if outcome.verdict != "aligned" else "aligned",
            _ratio(outcome, "forward"),
            _ratio(outcome, "bp_align"),
            ", ".join(f"{count} {word}" for word, count in outcome.matched_by.items()) or "-",
            str(outcome.noted or "-"),
            outcome.with_change or "-",
            f"{outcome.seconds:.0f}",
        )
        yield f"| {' | '.join(cells)} |"


def _port(case: Case) -> str:
    return case.port.replace("|", "\\|").removeprefix("align.sides.")


def _ratio(outcome: Outcome, step: str) -> str:
    ratio = outcome.ratios.get(step)
    if ratio is None:
        return "-"
    if not math.isfinite(ratio):
        return "infinite"
    return f"{ratio:.2g}"


def _notes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    differing = [outcome for outcome in outcomes if outcome.verdict != "aligned"]
    if not differing:
        return
    yield ""
    yield "What differs, and where it was found:"
    yield ""
    for outcome in differing:
        known = f" Because: {outcome.why}." if outcome.why else ""
        changed = f" With that changed: **{outcome.with_change}**." if outcome.with_change else ""
        yield f"- **{outcome.name}**: {found(outcome)}.{known}{changed}"


def found(outcome: Outcome) -> str:
    """Where and why it differs, as the comparison itself says."""
    if outcome.error:
        return outcome.error
    told = outcome.divergence
    if not told:
        return outcome.reason
    port, cause = told["port"], told["cause"]
    where = f" at {_short(port['file'])}:{port['line']}" if port else ""
    text = f" ({cause['text']})" if cause else ""
    return f"{told['module'] or '(model)'}: {told['what']}{where}{text}"


def _short(file: str) -> str:
    """The path inside the package, or the name of a file that is in none."""
    parts = Path(file).parts
    return "/".join(parts[parts.index("site-packages") + 1 :]) if "site-packages" in parts else parts[-1]
