"""Rows that are imprecise by chance: rounding made one element take another branch, a ReLU or a maximum, once.

The reference's noise is the greatest error of several runs, and a branch that lies within rounding may be taken
otherwise in none of them and in the port's one run. What is wrong with a port's precision is wrong in every run. So a
row that is right in float64 and too far off in the working type is asked again, with everything one ulp off as in the
reference's runs, and stays red only if it is too far off each time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from align.compare.judge import FACTOR, INSIDE, rejoined
from align.compare.rows import Row
from align.compare.verdict import StepVerdict, Verdict

Errors = Mapping[str, tuple[float, float]]  # by row: root mean square and maximum, against the reference's float64


def imprecise(result: Verdict) -> tuple[str, ...]:
    """The steps to ask again: all that is wrong with the run is that rows of these are imprecise.

    What a side lacks inside a model is wrong only because a result is.
    """
    bad = [row for row in result.rows if row.bad and not (row.verdict == "missing" and row.name.startswith(INSIDE))]
    if result.complaints or not all(map(_imprecise, bad)):
        return ()
    return tuple(step.step for step in result.steps if any(row.bad for row in step.rows))


def forgiven(result: Verdict, again: Mapping[str, Sequence[Errors]]) -> Verdict:
    """The verdict with rows `noted` that were within their limit in one of the port's perturbed runs of a step."""
    steps = []
    for step in result.steps:
        runs = again.get(step.step, ())
        rows = [_asked_again(row, runs) if row.bad else row for row in step.rows]
        steps.append(StepVerdict(step.step, tuple(rejoined(rows) if runs else rows), step.seconds))
    return replace(result, steps=tuple(steps))


def _imprecise(row: Row) -> bool:
    return bool(row.meaning and row.meaning.holds and row.precision and not row.precision.holds)


def _asked_again(row: Row, runs: Sequence[Errors]) -> Row:
    if not _imprecise(row) or row.noise is None or row.precision is None:
        return row
    ratios = [
        max(found[0] / row.noise.rms, found[1] / row.noise.maximum) for run in runs if (found := run.get(row.name))
    ]
    if not ratios or min(ratios) > FACTOR:
        return row
    reason = (
        f"precision {row.precision.ratio:.3g}x noise in one run, {min(ratios):.3g}x with everything one ulp off: "
        "a branch that lies within rounding"
    )
    return replace(row, verdict="noted", reason=reason)
