"""Judging drawn values: has each parameter the reference's initial distribution?

Every test compares two samples of equal size n, so that a limit needs no assumption about the distribution:

- `sample`: the two-sample Kolmogorov-Smirnov distance D. P(D >= t) <= e * exp(-n * t**2) for any n (Wei and Dudley,
  "Two-sample Dvoretzky-Kiefer-Wolfowitz inequalities", arXiv 1107.5356, theorem 1).
- `bounds`: how many values of one side lie beyond the other's last, at either end. Of equal distributions, every order
  of the pooled values is as likely as any other, so that the last k are all of one side with a probability of at most
  2 * 2**-k (Rosenbaum, "Tables for a nonparametric test of location", 1954).
- `mean` and `std`: their difference in standard errors, estimated from the samples. Here the limit is the normal
  distribution's, which needs many values and moments that exist.

Each test has the same share of `FAMILY`, the chance that any row of a right port fails (Bonferroni). A parameter that
is constant in the reference must be that constant, exactly, and `distinct` (see `align/steps/init.py`) must be equal.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from align.compare.judge import Sources, judge_step
from align.compare.rows import Judgement, Row

FAMILY = 1e-6
ENOUGH = 256  # values from which the normal limit of mean and std is trusted; measured in tests/align/compare


@dataclass(frozen=True)
class Pair:
    """Both sides' samples of one parameter, ascending, float64, of one size; and a test's chance of a false alarm."""

    port: np.ndarray
    reference: np.ndarray
    chance: float

    @property
    def size(self) -> int:
        return len(self.reference)


def judge_distributions(step: str, sources: Sources) -> list[Row]:
    """Every statistic that either side recorded; see the module's head. Rows stand in the reference's order.

    A judgement's `noise` is the statistic's own unit (a standard error, sqrt(2 / n), one value), its limit the critical
    value. `difference` is between the recorded statistics, as in every other step.
    """
    rows = judge_step(step, sources)
    if sources.port is None or sources.reference is None:
        return rows
    samples: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in {row.name.rpartition("/")[0] for row in rows}:
        key = f"{name}/sample"
        ours, theirs = sources.port.entries.get(key), sources.reference.entries.get(key)
        if ours and theirs and ours.shape == theirs.shape:
            samples[name] = sources.port[key].astype(np.float64), sources.reference[key].astype(np.float64)
    drawn = sum(_spread(reference) for _, reference in samples.values())
    chance = FAMILY / (len(TESTS) * max(drawn, 1))
    return [_judged(row, samples, chance) for row in rows]


def one_distribution(port: np.ndarray, reference: np.ndarray, chance: float = FAMILY / 4) -> bool:
    """Whether two samples (n,) of one size could be of one distribution; false where so few could show nothing."""
    pair = Pair(np.sort(port), np.sort(reference), chance)
    judged = {name: test(pair)[0] for name, test in TESTS.items()}
    return all(judged[name].holds and _could_fail(name, pair, judged[name]) for name in TESTS)


def _judged(row: Row, samples: Mapping[str, tuple[np.ndarray, np.ndarray]], chance: float) -> Row:
    name, _, statistic = row.name.rpartition("/")
    if row.difference is None or name not in samples or not row.difference.nonfinite_equal:
        return row
    pair = Pair(*samples[name], chance)
    if statistic not in TESTS or not _spread(pair.reference) or not _spread(pair.port):
        return _exactly(row, pair)
    judgement, allowance, told = TESTS[statistic](pair)
    row = replace(row, meaning=judgement, allowance=allowance)
    if not judgement.holds:
        return replace(row, verdict="misaligned", reason=told)
    if not _could_fail(statistic, pair, judgement):
        return replace(row, verdict="insensitive", reason=f"{pair.size} values a side are too few to show anything")
    return replace(row, verdict="aligned", reason="")


def _exactly(row: Row, pair: Pair) -> Row:
    """Constants and counts: aligned if equal. That the constant is zero makes it no less of a statement."""
    if row.verdict == "insensitive":
        return replace(row, verdict="aligned", reason="")
    if row.bad and _spread(pair.port) != _spread(pair.reference):
        told = [
            f"{what} in the {side}" for side, what in (("port", _kind(pair.port)), ("reference", _kind(pair.reference)))
        ]
        return replace(row, reason=", ".join(told))
    return row


def _spread(sample: np.ndarray) -> bool:
    return bool(sample[0] != sample[-1])


def _kind(sample: np.ndarray) -> str:
    if not _spread(sample):
        return f"constant {sample[0]:.6g}"
    return f"random in [{sample[0]:.3g}, {sample[-1]:.3g}]"


def _could_fail(statistic: str, pair: Pair, judgement: Judgement) -> bool:
    """Whether any sample of this size could be beyond the limit, and the limit can be trusted."""
    greatest = {"sample": 1.0, "bounds": float(pair.size)}
    return judgement.limit < greatest[statistic] if statistic in greatest else pair.size >= ENOUGH


def _sample(pair: Pair) -> tuple[Judgement, float, str]:
    values = np.concatenate([pair.port, pair.reference])
    shares = [np.searchsorted(side, values, side="right") / pair.size for side in (pair.port, pair.reference)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    limit = math.sqrt((1 - math.log(pair.chance)) / pair.size)
    told = (
        f"another distribution: Kolmogorov-Smirnov distance {distance:.3g} between {pair.size} values a side, at most "
        f"{limit:.3g} by chance; {_kind(pair.port)} in the port, {_kind(pair.reference)} in the reference"
    )
    return Judgement(distance, math.sqrt(2 / pair.size), limit, "distance"), 0.0, told


def _bounds(pair: Pair) -> tuple[Judgement, float, str]:
    limit = math.log2(4 / pair.chance)  # four ways to be beyond: either side, either end
    worst, told, slack = 0, "", 0.0
    for ours, theirs, side, other in (
        (pair.port, pair.reference, "port", "reference"),
        (pair.reference, pair.port, "reference", "port"),
    ):
        above, below = int((ours > theirs[-1]).sum()), int((ours < theirs[0]).sum())
        for count, word, bound in ((above, "above", theirs[-1]), (below, "below", theirs[0])):
            if count > worst:
                worst = count
                told = f"{count} of {pair.size} values of the {side} lie {word} {bound:.6g}, the {other}'s last"
        within = min(int(limit), len(ours) - 1)
        slack = max(slack, ours[-1] - ours[-1 - within], ours[within] - ours[0])
    return Judgement(float(worst), 1.0, limit, "values"), float(slack), f"{told}; at most {int(limit)} by chance"


def _mean(pair: Pair) -> tuple[Judgement, float, str]:
    sides = pair.port, pair.reference
    error = math.sqrt(sum(float(np.var(side)) / pair.size for side in sides))
    return _in_standard_errors(pair, "mean", np.mean, error)


def _std(pair: Pair) -> tuple[Judgement, float, str]:
    """The standard error of a standard deviation s is sqrt((m4 - s**4) / n) / (2 s), m4 the fourth central moment."""
    squared = 0.0
    for side in (pair.port, pair.reference):
        centred = side - side.mean()
        variance = float(np.mean(centred**2))
        squared += (float(np.mean(centred**4)) - variance**2) / (4 * variance * pair.size)
    return _in_standard_errors(pair, "standard deviation", np.std, math.sqrt(max(squared, 0.0)))


def _in_standard_errors(
    pair: Pair, what: str, statistic: Callable[[np.ndarray], np.floating], error: float
) -> tuple[Judgement, float, str]:
    ours, theirs = float(statistic(pair.port)), float(statistic(pair.reference))
    critical = -NormalDist().inv_cdf(pair.chance / 2)
    judgement = Judgement(abs(ours - theirs), error, critical * error, "difference")
    told = (
        f"{what} {ours:.6g} in the port, {theirs:.6g} in the reference: {judgement.ratio:.3g} standard errors apart, "
        f"at most {critical:.3g} by chance"
    )
    return judgement, judgement.limit, told


TESTS: dict[str, Callable[[Pair], tuple[Judgement, float, str]]] = {
    "bounds": _bounds,
    "mean": _mean,
    "std": _std,
    "sample": _sample,
}
