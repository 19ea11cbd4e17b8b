"""What the gate said of one mutant, and whether that is what the mutant expects."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from align.compare.verdict import StepVerdict, Verdict
from align.mutate.patch import Mutant, Patched

CLASSIC = 1e-6  # reprod_log's default threshold on the mean absolute difference
CLASSIC_STEPS = ("forward", "metric", "loss", "bp_align")  # what its users compare, by their headline arrays


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
    """One mutant's run. `error`: the copy could not be made or run; then there is no verdict.

    `touched`: the steps that enter what was changed, all others cannot be touched by it. `ran`: those that were run,
    in the order of dependence, until one was red. `line`: whether the blamed place, or the constructor call that made
    its module, meets the replaced text; None without a divergence. `classic`: whether reprod_log's rule fails an
    array of it that it passes without the bug.
    """

    id: str
    verdict: str | None
    blamed_step: str | None = None
    worst: Mapping[str, Worst] = field(default_factory=dict)  # by step, in meaning
    seconds: float = 0.0
    error: str | None = None
    touched: tuple[str, ...] = ()
    ran: tuple[str, ...] = ()
    divergence: Mapping[str, Any] | None = None
    divergences: int = 0
    line: bool | None = None
    classic: bool | None = None

    @property
    def killed(self) -> bool:
        return self.error is None and self.verdict != "aligned"

    @property
    def cause(self) -> str | None:
        """The id of the proven cause, if one was proven."""
        cause = (self.divergence or {}).get("cause")
        return cause["id"] if cause else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(fields: Mapping[str, Any]) -> Outcome:
    """The outcome whose `as_json` went through a file."""
    worst = {step: Worst(**row) for step, row in fields["worst"].items()}
    pairs = {name: tuple(fields[name]) for name in ("touched", "ran")}
    return Outcome(**{**fields, **pairs, "worst": worst})


@dataclass(frozen=True)
class Score:
    """An outcome held against its mutant: each part True, False, or None where nothing is expected."""

    green: bool | None  # an equivalent mutant that stays green
    killed: bool | None
    step: bool | None
    module: bool | None
    line: bool | None
    cause: bool | None

    @property
    def holds(self) -> bool:
        return all(
            part is not False for part in (self.green, self.killed, self.step, self.module, self.line, self.cause)
        )


def score(mutant: Mutant, outcome: Outcome) -> Score:
    """Which of the mutant's expectations hold; an outcome with an error holds none."""
    if mutant.equivalent:
        return Score(outcome.error is None and not outcome.killed, None, None, None, None, None)
    expect, found = mutant.expect, outcome.divergence or {}
    return Score(
        green=None,
        killed=outcome.killed,
        step=outcome.blamed_step == mutant.step,
        module=found.get("module") == expect["module"] if "module" in expect else None,
        line=bool(outcome.line) if expect.get("line") else None,
        cause=outcome.cause == expect["cause"] if "cause" in expect else None,
    )


def meets(divergence: Mapping[str, Any], patched: Patched) -> bool:
    """Whether the port's blamed lines, or those of the constructor call, touch the replaced text."""
    port = divergence["port"]
    places = [place for place in (port, port and port["built"]) if place]
    here = [place for place in places if Path(place["file"]).resolve() == patched.file.resolve()]
    return any(place["line"] <= last and place["end_line"] >= first for place in here for first, last in patched.lines)


def classic_failing(verdicts: Iterable[StepVerdict]) -> list[tuple[str, str]]:
    """(step, name) of the headline arrays that reprod_log fails: mean absolute difference above 1e-6, or none."""
    rows = [(step.step, row) for step in verdicts if step.step in CLASSIC_STEPS for row in step.rows if row.headline]
    return [(step, row.name) for step, row in rows if row.difference is None or row.difference.mean_abs > CLASSIC]


def worst_rows(verdict: Verdict, of: Literal["meaning", "precision"] = "meaning") -> dict[str, Worst]:
    """By step, the row with the greatest error in units of noise, in one of the two judgements; excused rows aside."""
    return {step.step: _worst(step, of) for step in verdict.steps}


def _worst(step: StepVerdict, of: str) -> Worst:
    found = Worst()
    for row in [row for row in step.rows if row.bad] or step.rows:  # of a red step, none that is merely noisy
        judgement = None if row.verdict in ("noted", "waived") else getattr(row, of)
        if judgement is not None and judgement.ratio > found.ratio:
            found = Worst(judgement.ratio, row.name, judgement.measure, exact=judgement.limit == 0)
    return replace(found, unjudged=sum(row.bad and row.meaning is None for row in step.rows))
