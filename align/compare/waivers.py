"""What may differ, on record: `waivers.toml` (an accepted difference, with an end) and `deviations.toml` (inherent)."""

import ast
import datetime
import operator
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from align.compare.judge import Sources, with_formula
from align.compare.rows import Row
from align.errors import UsageError

WAIVER = ("case", "step", "row", "reason", "expires")
DEVIATION = ("case", "step", "row", "reason", "formula", "proof")
INHERENT = Path(__file__).with_name("deviations.toml")
FACTS = ("count", "momentum", "before")  # what a recording may say of a row, for formulas to use
LONGEST = 200  # characters of a formula: it is parsed and worked out by recursion

OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass
class Entry:
    """One table of either file; `used` counts the rows it applied to."""

    fields: Mapping[str, Any]
    origin: str
    used: int = 0

    def matches(self, case: str, step: str, row: str) -> bool:
        wanted = (self.fields["case"], self.fields["step"], self.fields["row"])
        return all(fnmatchcase(value, pattern) for value, pattern in zip((case, step, row), wanted, strict=True))

    def concerns(self, case: str, steps: Collection[str]) -> bool:
        fits = fnmatchcase(case, self.fields["case"])
        return fits and any(fnmatchcase(step, self.fields["step"]) for step in steps)

    def __str__(self) -> str:
        return f"{self.origin}: {self.fields['case']} {self.fields['step']} {self.fields['row']!r}"


@dataclass
class Exceptions:
    """The waivers and deviations in force for a comparison."""

    waivers: list[Entry] = field(default_factory=list)
    deviations: list[Entry] = field(default_factory=list)
    inherent: list[Entry] = field(default_factory=list)  # of a framework: shipped, and stale for no one
    today: datetime.date = field(default_factory=datetime.date.today)

    def applied(self, case: str, step: str, rows: Iterable[Row]) -> list[Row]:
        """The rows, with what a waiver in force covers marked `waived`."""
        return [self._waived(case, step, row) for row in rows]

    def noted(self, case: str, row: Row, sources: Sources, fixed: float | None = None) -> Row:
        """A bad row that a deviation's formula brings back to noise becomes `noted`; others stay as they are."""
        if row.verdict != "misaligned" or row.difference is None:
            return row
        facts = _facts(sources, row.name)
        for deviation in (*self.deviations, *self.inherent):
            if deviation.matches(case, row.step, row.name) and not _unknown(deviation.fields, facts):
                formula = partial(corrected, {**deviation.fields, **facts})
                again = with_formula(row, sources, formula, fixed)
                if not again.bad:
                    deviation.used += 1
                    return replace(again, verdict="noted", reason=deviation.fields["reason"])
        return row

    def _waived(self, case: str, step: str, row: Row) -> Row:
        if not (row.bad or row.verdict == "insensitive"):
            return row
        for waiver in self.waivers:
            if waiver.matches(case, step, row.name):
                waiver.used += 1
                if self.today <= waiver.fields["expires"]:
                    return replace(row, verdict="waived", waived=waiver.fields["reason"])
        return row

    def complaints(self, case: str, steps: Collection[str]) -> tuple[str, ...]:
        """Entries that no longer have a place: expired, or unused by a case and step that ran."""
        told = []
        for entry in (*self.waivers, *self.deviations):
            if not entry.concerns(case, steps):
                continue
            expires = entry.fields.get("expires")
            if expires and self.today > expires:
                told.append(f"{entry} expired on {expires}: fix the difference or renew it")
            elif not entry.used:
                told.append(f"{entry} is stale: nothing that ran needed it; take it out")
        return tuple(told)


def _facts(sources: Sources, name: str) -> dict[str, Any]:
    """What the reference's recording says of a row, as far as formulas may use it."""
    recorded = sources.reference_twin or sources.reference
    if recorded is None or name not in recorded.entries:
        return {}
    told = recorded.entries[name].facts or {}
    facts = {fact: told[fact] for fact in FACTS if fact in told}
    held = name.replace("update/", "param/", 1)
    return facts | ({"before": recorded[held]} if held != name and held in recorded.entries else {})


def _unknown(fields: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether the formula needs a fact that the recording does not hold."""
    return any(fact in fields["formula"] and fact not in {**fields, **facts} for fact in FACTS)


def read(waivers: Path | None, deviations: Path | None) -> Exceptions:
    """Read both files; UsageError for one that is missing, no TOML, or has an entry without its fields."""
    given = _entries(waivers, "waiver", WAIVER), _entries(deviations, "deviation", DEVIATION)
    return Exceptions(*given, _entries(INHERENT, "deviation", DEVIATION))


def _entries(path: Path | None, table: str, required: tuple[str, ...]) -> list[Entry]:
    if path is None:
        return []
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: cannot read it: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
    entries = content.pop(table, [])
    if content or not isinstance(entries, list):
        raise UsageError(f"{path}: expected only [[{table}]] tables, found {', '.join(content) or table}")
    for number, fields in enumerate(entries, 1):
        where = f"{path}: {table} {number}"
        if not isinstance(fields, dict):
            raise UsageError(f"{where}: expected a [[{table}]] table, found {fields!r}")
        if missing := [name for name in required if name not in fields]:
            raise UsageError(f"{where}: lacks {', '.join(missing)}")
        for name in required:
            expected = datetime.date if name == "expires" else str
            if type(fields[name]) is not expected:  # a time of day is a date too, but none that compares with one
                raise UsageError(f"{where}: {name} must be a {expected.__name__}, not {fields[name]!r}")
        if table == "deviation":
            corrected(
                {**dict.fromkeys(FACTS, 2), **fields}, np.ones(1)
            )  # a formula that cannot be read is told now, not in the middle of a run
    return [Entry(fields, f"{path.name} {table} {number}") for number, fields in enumerate(entries, 1)]


def corrected(fields: Mapping[str, Any], port: np.ndarray) -> np.ndarray:
    """What the reference would hold, by the deviation's formula: arithmetic on `port` and the entry's own numbers."""

    formula = fields["formula"]

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        if isinstance(node, ast.Name) and node.id == "port":
            return port
        if isinstance(node, ast.Name) and isinstance(fields.get(node.id), (int, float, np.ndarray)):
            return fields[node.id]
        raise UsageError(f"deviation formula {formula!r}: only + - * /, numbers, `port` and own numbers")

    if len(formula) > LONGEST:
        raise UsageError(f"deviation formula {formula[:40]!r}...: longer than {LONGEST} characters")
    try:
        with np.errstate(all="ignore"):  # infinities are judged like any other value
            result = np.asarray(value(ast.parse(formula.strip(), mode="eval").body))
    except (SyntaxError, ValueError):
        raise UsageError(f"deviation formula {formula!r}: not an arithmetic expression") from None
    except ArithmeticError as error:
        raise UsageError(f"deviation formula {formula!r}: {error}") from None
    if result.shape != port.shape:
        raise UsageError(f"deviation formula {formula!r}: does not depend on `port`")
    return result
