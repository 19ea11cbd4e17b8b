"""From rows to a step's verdict and to the run's: red rows, coverage, and whether the comparison could see anything."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from align.case import STEPS
from align.compare.accuracy import FinalAccuracy
from align.compare.judge import INSIDE
from align.compare.rows import Row
from align.compare.weights import Weights
from align.locate.divergence import Divergence
from align.steps import after_update, chain

# Kinds of rows of which each subject needs a row that could have failed: a gate that is blind to one is vacuous.
SUBJECTS = ("parameter", "gradient", "output", "metric")

NEAR = 3  # rows kept in full on either side of the first difference by `--keep summary`


@dataclass(frozen=True)
class StepVerdict:
    """One step: its rows, the worst of them, and `aligned`, `misaligned`, `vacuous` or `empty`."""

    step: str
    rows: tuple[Row, ...]
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        if not self.rows:
            return "empty"
        if any(row.bad for row in self.rows):
            return "misaligned"
        return "vacuous" if all(row.verdict == "insensitive" for row in self.rows) else "aligned"

    @property
    def failing(self) -> tuple[Row, ...]:
        """The bad rows; of those that stand in one chain, each made from the one before, the first."""
        found: list[Row] = []
        seen: set[str | None] = set()
        for row in self.rows:
            stands_in = chain(self.step, row.name)
            if not row.bad or stands_in in seen:
                continue
            found.append(row)
            while stands_in:  # what is made of several chains stands one level above them
                seen.add(stands_in)
                stands_in = stands_in.rpartition("/")[0]
        return tuple(found)

    @property
    def late(self) -> bool:
        """Whether it is red in nothing but what updates leave, which `optim` is judged before."""
        bad = [row for row in self.rows if row.bad]
        return bool(bad) and all(after_update(self.step, row.name) for row in bad)

    @property
    def worst(self) -> Row | None:
        return max(self.failing or self.rows, key=lambda row: row.excess, default=None)

    def __bool__(self) -> bool:
        return self.verdict == "aligned"


@dataclass(frozen=True)
class Verdict:
    """The whole run. True only if something was compared, all of it is aligned, and nothing was compared blindly."""

    case: str
    steps: tuple[StepVerdict, ...]
    environment: dict[str, Any] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()  # waivers and deviations that no longer have a place
    weights: Weights | None = None  # where the port's tensors were looked for: how they were found
    no_twin: Mapping[str, str] = field(default_factory=dict)  # why a step of the port was not judged in float64
    accuracy: FinalAccuracy | None = None  # where a model was trained; judged by the row `acc_test` alone
    divergences: tuple[Divergence, ...] = ()  # where the sides part, in the order of dependence and execution
    notes: tuple[str, ...] = ()  # what a reader must know about how this was compared

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for step in self.steps for row in step.rows)

    @property
    def blind(self) -> tuple[str, ...]:
        """Parameters, outputs and metrics of which no row is sensitive, as `kind name`."""
        return unseen(self.rows)

    @property
    def verdict(self) -> str:
        if not any(step.rows for step in self.steps):
            return "empty"
        if self.complaints or any(step.verdict in ("misaligned", "empty") for step in self.steps):
            return "misaligned"
        return "vacuous" if self.blind or not all(self.steps) else "aligned"

    @property
    def blamed_step(self) -> str | None:
        """The first red step in the order of dependence.

        `bp_align` stands there twice: its gradients before `optim`, and what its updates leave after it.
        """
        red = [step for step in self.steps if not step]
        return min(red, key=_dependence).step if red else None

    def around_first_difference(self) -> dict[str, set[str]]:
        """In the first red step, the names of the first red row and its neighbours in call order; empty if none is.

        Of the rows inside the model, and of all: `forward` records a result before the pass whose modules it records.
        """
        for step in self.steps:
            red = [index for index, row in enumerate(step.rows) if row.bad]
            inside = [index for index in red if step.rows[index].name.startswith(INSIDE)]
            if red:
                near = (step.rows[max(0, first - NEAR) : first + NEAR + 1] for first in {red[0], *inside[:1]})
                return {step.step: {row.name for rows in near for row in rows}}
        return {}

    @property
    def exit_code(self) -> int:
        return {"aligned": 0, "misaligned": 1, "vacuous": 1, "empty": 5}[self.verdict]

    @property
    def environment_line(self) -> str:
        """Both sides in one line: `torch 2.15.0 on cpu, paddle 3.3.1 on cpu`."""
        told = (f"{side} {at['versions'][side]} on {at['devices']['used']}" for side, at in self.environment.items())
        return ", ".join(told)

    def __bool__(self) -> bool:
        return self.verdict == "aligned"


def _dependence(step: StepVerdict) -> float:
    """The place of a red step in the order of dependence."""
    return STEPS.index("optim") + 0.5 if step.late else STEPS.index(step.step)


def unseen(rows: Iterable[Row]) -> tuple[str, ...]:
    """The subjects all of whose rows are insensitive.

    A parameter is one subject over all its rows: its value after loading, its gradient, its value after training. A
    module's activations are not subjects of their own: what they pass on is seen in the outputs.
    """
    seen: dict[str, bool] = {}
    for row in rows:
        if row.kind not in SUBJECTS or row.name.startswith(INSIDE):
            continue
        where = name = row.name
        for prefix in ("random/", "loop/", "accumulated/", "evaluation/", "far/"):  # the same, at another time
            where = name = name.removeprefix(prefix)
        for prefix in ("ema/", "grad/", "param/"):
            name = name.removeprefix(prefix)
        kind = "parameter" if name != where or row.kind == "parameter" else row.kind
        subject = f"{kind} {name}"
        seen[subject] = seen.get(subject, False) or row.verdict != "insensitive"
    return tuple(subject for subject, visible in seen.items() if not visible)


def coverage(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """By kind of row: how many were compared, of how many that either side has."""
    table: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = table.setdefault(row.kind, {"compared": 0, "total": 0, "waived": 0, "insensitive": 0})
        counts["total"] += 1
        counts["compared"] += row.difference is not None
        counts["waived"] += row.waived is not None
        counts["insensitive"] += row.verdict == "insensitive"
    return table
