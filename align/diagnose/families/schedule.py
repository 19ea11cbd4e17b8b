"""A learning rate's course: shifted, warmed up otherwise, or another cosine; made again from the recipe's numbers."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from align.case import Case
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.fitting import short, solved
from align.diagnose.numbers import told
from align.diagnose.rows import RowEvidence
from align.locate.modules import LIMIT, own_error
from align.steps.optim import scenarios, schedules

RANK = 4
SHIFTS = (1, -1, 2, -2, 3, -3)
DEFAULTS = {"warmup_lr": 1e-6, "min_lr": 1e-5, "warmup_iterations": 0}  # of `build_schedule`, where it is not told


@dataclass(frozen=True)
class Course:
    """Linear warm-up, then half a cosine; the fields say what ports make otherwise.

    `past` iterations that the warm-up counts as done at its start; `cosine` the iterations of the half period; `offset`
    what is taken from the iteration inside the cosine; `held` whether the rate stays at `low` after the end.
    """

    peak: float
    iterations: float
    warmup: float
    start: float
    low: float
    cosine: float
    past: int = 0
    offset: float = 0.0
    held: bool = True
    form: str = "cosine"

    def rate(self, t: int) -> float:
        """With t updates done."""
        if t < self.warmup:
            return self.start + (t + self.past) * (self.peak - self.start) / self.warmup
        if self.form == "constant":
            return self.peak
        if t >= self.iterations and self.held:
            return self.low
        done = (t - self.offset) / self.cosine
        if self.form == "linear":
            return self.peak + (self.low - self.peak) * min(done, 1.0)
        return self.low + 0.5 * (self.peak - self.low) * (1 + math.cos(math.pi * done))

    def rates(self, first: int, count: int, shift: int = 0) -> np.ndarray:
        """float64 (count,)."""
        return np.array([self.rate(max(t + shift, 0)) for t in range(first, first + count)])


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.pair is None or evidence.rows.case is None:
        return
    port, reference = evidence.pair
    if port.ndim != 1:
        return
    exact = evidence.rows.reference[evidence.name].dtype == np.float64
    place = _course(evidence.rows.step, evidence.name, evidence.rows.case, exact)
    if place is None:
        return
    course, first = place
    if own_error(course.rates(first, len(reference)), reference) > LIMIT:
        return

    for name, text, change, made in _otherwise(course, first, len(port)):
        yield Hypothesis(name, text, made, port, change=change)
    yield from _solved(course, first, port)


def _course(step: str, row: str, case: Case, exact: bool) -> tuple[Course, int] | None:
    """What the reference's row is made from, and the iteration that it begins with."""
    kind, _, name = row.rpartition("/")
    told_of: Mapping[str, Any] | None = None
    if step == "train_align" and row == "lr":
        told_of, first = schedules(case)["recipe"], 0
    elif step == "optim" and kind in ("lr", "lr_resumed") and name in schedules(case):
        told_of = schedules(case)[name]
        first = told_of["iterations"] // 2 if kind == "lr_resumed" else 0
    elif step == "optim" and name == "lr" and kind in scenarios(case):
        told_of, first = scenarios(case)[kind].schedule, 0
    if told_of is None:
        return None
    recipe = {n: float(np.float32(v)) if exact and isinstance(v, float) else v for n, v in told_of.items()}
    recipe = {**DEFAULTS, **recipe}
    n = recipe["iterations"]
    return Course(recipe["lr"], n, recipe["warmup_iterations"], recipe["warmup_lr"], recipe["min_lr"], n), first


Choice = tuple[str, str, str, np.ndarray]


def _otherwise(course: Course, first: int, count: int) -> Iterator[Choice]:
    """Id, sentence, change, and the rates that it would give."""
    n, w = course.iterations, course.warmup
    for shift in (*SHIFTS, *({w, -w, first, -first} - {0, *SHIFTS})):
        k = int(shift)
        words = f"{abs(k)} iteration{'s' if abs(k) != 1 else ''} {'ahead of' if k > 0 else 'behind'} the reference's"
        yield "schedule-shift", f"the port's schedule is {words}", f"shift it by {-k}", course.rates(first, count, k)

    def choice(name: str, text: str, **changes: object) -> Choice:
        return (
            name,
            f"{text} in the reference",
            text.rpartition(" in the port, ")[2],
            replace(course, **changes).rates(  # type: ignore[arg-type]
                first, count
            ),
        )

    yield choice("warmup", "warm-up that begins one iteration ahead in the port, at its start", past=1)
    yield choice("warmup", f"warm-up from 0 in the port, from {told(course.start)}", start=0.0)
    for length in range(2 * int(w) + 3):
        if length != w:
            text = f"warm-up of {length} iterations in the port, {told(float(w))}"
            yield choice("warmup", text, warmup=length)
    if w:
        whole = f"over all {told(float(n))} iterations"
        for text, changes in (
            (f"cosine that begins after the warm-up, over the {n - w} left", {"offset": w, "cosine": max(n - w, 1)}),
            ("cosine that begins after the warm-up, as long", {"offset": w}),
            (f"cosine that begins and ends {w} iterations later", {"offset": w, "iterations": n + w}),
            (f"cosine over {n - w} iterations", {"cosine": max(n - w, 1)}),
            (f"cosine over {n + w} iterations", {"cosine": n + w}),
            (f"schedule that ends {w} iterations later", {"cosine": n + w, "iterations": n + w}),
        ):
            yield choice("cosine-length", f"{text} in the port, {whole} from the beginning", **changes)
    for total in (n - 1, n + 1):
        if total > 0:
            text = f"cosine over {total} iterations in the port, {n}"
            yield choice("cosine-length", text, cosine=total)
            yield choice("cosine-length", text, cosine=total, iterations=total)
    yield choice("schedule-end", "the cosine goes on after its end in the port, the least rate is kept", held=False)
    yield choice("schedule-form", "a constant rate after the warm-up in the port, a cosine", form="constant")
    yield choice("schedule-form", "a straight line after the warm-up in the port, a cosine", form="linear")
    yield choice("minimum-rate", f"least rate 0 in the port, {told(course.low)}", low=0.0)
    yield (
        "warmup",
        "warm-up in the port that starts from the peak rate",
        f"{told(course.start)}",
        replace(course, start=course.peak).rates(first, count),
    )


def _solved(course: Course, first: int, port: np.ndarray) -> Iterator[Hypothesis]:
    forms: list[tuple[str, str, float, Callable[[float], Course]]] = [
        ("learning-rate", "peak rate", course.peak, lambda x: replace(course, peak=x)),
        ("minimum-rate", "least rate", course.low, lambda x: replace(course, low=x)),
        ("warmup", "warm-up's first rate", course.start, lambda x: replace(course, start=x)),
        ("cosine-length", "length of the cosine", course.cosine, lambda x: replace(course, cosine=x)),
    ]
    for name, words, expected, form in forms:
        found = solved(lambda x, form=form: form(x).rates(first, len(port)), port, float(expected))  # type: ignore[misc]
        if found is not None:
            text = f"{words} {told(short(found))} in the port, {told(short(float(expected)))} in the reference"
            yield Hypothesis(name, text, form(found).rates(first, len(port)), port, fitted=1, change=told(expected))
