"""Evidence about a step without a model to replay: its first wrong rows, and all that both sides recorded beside them.

The step's inputs are the same on both sides, and of rows that are made one from the other only the first wrong one is
looked at: what is wrong with it, the step's own code did.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from align.case import Case, from_json
from align.compare.runs import RAISED, Runs
from align.compare.verdict import StepVerdict, Verdict
from align.diagnose.cause import Cause
from align.diagnose.evidence import Evidence
from align.diagnose.prove import diagnose
from align.errors import AlignError
from align.locate.acts import MADE
from align.locate.divergence import Divergence
from align.plan import Plan, open_plan
from align.record.manifest import Recording
from align.steps import LINED, STATISTICAL

ASKED = (*LINED, *STATISTICAL, "bp_align", "train_align")  # `forward` has its modules, which say more
SORTS = 6  # of wrong rows that are asked, where none is named
COUNTED = ("loop", "draws", "lr")
ROWS = 6  # wrong rows of one sort that are looked at: what explains none of them explains nothing


@dataclass(frozen=True)
class Recorded:
    """All rows of one step as both sides recorded them, by name, from the float64 twins where there are any."""

    step: str
    port: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray]
    plan: Mapping[str, np.ndarray] = field(default_factory=dict)  # its tensors, by name: what both sides were fed
    case: Case | None = None  # that the plan was made for
    steps: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)  # the reference's, in the working type


@dataclass(frozen=True)
class RowEvidence(Evidence):
    """One wrong row. `port` and `reference` are widened to float64 (None: that side has none); `rows` is the rest.

    `kind` is the row's, `code` the port's source line that was blamed for it, empty where none was.
    """

    rows: Recorded = field(default_factory=lambda: Recorded("", {}, {}))
    kind: str = ""
    code: str = ""

    @property
    def leaf(self) -> str:
        """The last part of the name: a stage, a parameter's role, a statistic."""
        return self.name.rpartition("/")[2]


def recorded(runs: Runs, step: str) -> Recorded | None:
    """A step of both sides; None where one of them has no recording of it."""
    pairs = ((runs.port_twin, runs.reference_twin), (runs.port, runs.reference))
    for port, reference in pairs:
        if port and reference and step in port.manifest.steps and step in reference.manifest.steps:
            plan, steps = _plan(runs.reference), _Steps(runs.reference)
            tensors, case = (plan.tensors, from_json(plan.description["case"])) if plan else ({}, None)
            return Recorded(step, port.step(step), reference.step(step), tensors, case, steps)
    return None


def _plan(recording: Recording) -> Plan | None:
    """None where the recording was copied without its plan."""
    try:
        return open_plan(recording.folder.parent / f"plan-{recording.manifest.plan}")
    except AlignError:
        return None


class _Steps(Mapping[str, Mapping[str, np.ndarray]]):
    """The steps of a recording, each opened when it is asked for."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def __getitem__(self, step: str) -> Mapping[str, np.ndarray]:
        if step not in self._recording.manifest.steps:
            raise KeyError(step)
        return self._recording.step(step)

    def __iter__(self) -> Iterator[str]:
        return iter(self._recording.manifest.steps)

    def __len__(self) -> int:
        return len(self._recording.manifest.steps)


def wide(array: np.ndarray | None) -> np.ndarray | None:
    """Numbers as float64, whatever their type; None for what is no real number."""
    return array.astype(np.float64) if array is not None and array.dtype.kind in "biuf" else None


def with_row_causes(result: Verdict, runs: Runs, divergences: Sequence[Divergence]) -> tuple[Divergence, ...]:
    """The same divergences with the causes that rows prove, and one without a line where only a row tells anything."""
    answer: list[Divergence] = []
    for step in result.steps:
        here = [divergence for divergence in divergences if divergence.step == step.step]
        if not step and step.step in ASKED and not any(row.name == RAISED for row in step.rows):
            here = _caused(step, runs, here)
        answer += here
    return tuple(answer)


def _caused(step: StepVerdict, runs: Runs, here: Sequence[Divergence]) -> list[Divergence]:
    """A cause explains the rows that the divergence was found by, or, where none was found, the step's first ones."""
    if any(divergence.module and divergence.port for divergence in here):
        return list(here)  # modules that are wrong have their own evidence
    found = recorded(runs, step.step)
    failing = [row.name for row in step.failing]
    if found is None or not failing:
        return list(here)
    # A row that the port has not has no line, unless it is there under a name of its own: other lines are those of what
    # is made later.
    lone = [name for name in failing if name not in found.reference]
    first = [d for d in here if d.port and _named(d, [failing[0], *lone])]
    answer = []
    if not any(divergence.port for divergence in here) or (failing[0] not in found.port and not first):
        cause, row = _cause(found, step, failing[0], "")
        what = f"{row} differs" if row in found.port else f"{row} is missing"
        if cause:
            answer.append(Divergence(step.step, "", what, float("inf"), None, None, cause.as_json()))
    for divergence in here:
        code = divergence.port.code if divergence.port else ""
        named = _named(divergence, failing) if divergence.port else []
        acted = divergence.what.startswith(("the loop", *MADE.values()))
        asked = [max(named, key=len)] if named else _one_of_each_sort(failing) if acted else []
        causes = (_cause(found, step, row, code)[0] for row in asked if divergence.cause is None)
        if cause := next(filter(None, causes), None):
            divergence = replace(divergence, cause=cause.as_json())
        answer.append(divergence)
    return answer


def _one_of_each_sort(failing: Sequence[str]) -> list[str]:
    """What an act of a loop has made wrong is in any of the rows; those of a few numbers say it first."""
    first: dict[str, str] = {}
    for row in failing:
        first.setdefault(_sort(row), row)
    return sorted(first.values(), key=lambda row: row.partition("/")[0] not in COUNTED)[:SORTS]


def _named(divergence: Divergence, rows: Iterable[str]) -> list[str]:
    """The rows that a divergence may have been found by: one name may begin with another."""
    return [name for name in rows if divergence.what.startswith((f"{name} ", f"{name}:"))]


def _cause(found: Recorded, step: StepVerdict, first: str, code: str) -> tuple[Cause | None, str]:
    """The first proof in the rows of one sort, and the row that gave it."""
    rows = [first, *(row.name for row in step.failing if row.name != first and _sort(row.name) == _sort(first))]
    kinds = {row.name: row.kind for row in step.rows}
    for evidence in evidences(found, rows[:ROWS], kinds, code):
        if cause := diagnose([[evidence]])[0]:
            return cause, evidence.name
    return None, first


def _sort(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2]


def evidences(found: Recorded, names: Iterable[str], kinds: Mapping[str, str], code: str = "") -> Iterable[Evidence]:
    """What there is to say about each row."""
    for name in names:
        port, reference = (wide(side.get(name)) for side in (found.port, found.reference))
        sizes = {} if reference is None else {f"axis {k} of {name}": float(n) for k, n in enumerate(reference.shape)}
        yield RowEvidence(
            found.step, name, port, reference, numbers=sizes, rows=found, kind=kinds.get(name, ""), code=code
        )
