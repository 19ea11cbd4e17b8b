"""From rows to a step's verdict and to the run's."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from align.case import STEPS
from align.compare.rows import Row

BAD = ("misaligned", "missing")


@dataclass(frozen=True)
class StepVerdict:
    """One step: its rows, the worst of them, and `aligned`, `misaligned` or `empty`."""

    step: str
    rows: tuple[Row, ...]
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        if not self.rows:
            return "empty"
        return "misaligned" if any(row.verdict in BAD for row in self.rows) else "aligned"

    @property
    def worst(self) -> Row | None:
        return max(self.rows, key=lambda row: (row.verdict in BAD, row.ratio), default=None)

    def __bool__(self) -> bool:
        return self.verdict == "aligned"


@dataclass(frozen=True)
class Verdict:
    """The whole run. It is true only if something was compared and all of it is aligned."""

    case: str
    steps: tuple[StepVerdict, ...]
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if not any(step.rows for step in self.steps):
            return "empty"
        return "aligned" if all(self.steps) else "misaligned"

    @property
    def blamed_step(self) -> str | None:
        """The first red step in the order of dependence."""
        red = [step.step for step in self.steps if not step]
        return min(red, key=STEPS.index, default=None)

    @property
    def exit_code(self) -> int:
        return {"aligned": 0, "misaligned": 1, "empty": 5}[self.verdict]

    @property
    def environment_line(self) -> str:
        """Both sides in one line: `torch 2.15.0 on cpu, paddle 3.3.1 on cpu`."""
        told = (f"{side} {at['versions'][side]} on {at['devices']['used']}" for side, at in self.environment.items())
        return ", ".join(told)

    def __bool__(self) -> bool:
        return self.verdict == "aligned"


def coverage(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """By kind of row: how many were compared, of how many that either side has."""
    table: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = table.setdefault(row.kind, {"compared": 0, "total": 0, "waived": 0, "insensitive": 0})
        counts["total"] += 1
        counts["compared"] += row.verdict != "missing"
        counts["waived"] += row.waived is not None
        counts["insensitive"] += row.verdict == "insensitive"
    return table
