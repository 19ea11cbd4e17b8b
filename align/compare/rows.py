"""One row: one compared tensor, the facts about it, and its two judgements."""

from dataclasses import dataclass

from align.compare.noise import Noise
from align.compare.statistics import Difference


@dataclass(frozen=True)
class Judgement:
    """An error in units of noise, and what it is allowed; all absolute. `ratio` is error / noise: "2.1x noise".

    `measure` says which of the two, rms or maximum, came nearer to its limit.
    """

    error: float
    noise: float
    limit: float
    measure: str

    @property
    def ratio(self) -> float:
        return _quotient(self.error, self.noise)

    @property
    def excess(self) -> float:
        """1 at the limit."""
        return _quotient(self.error, self.limit)

    @property
    def holds(self) -> bool:
        return self.error <= self.limit  # false for NaN


def _quotient(error: float, unit: float) -> float:
    if error == 0:
        return 0.0
    return error / unit if unit else float("inf")


def judge(difference: Difference, noise: Noise, limit: Noise) -> Judgement:
    """The error's rms and maximum, each against its own noise and limit; the one nearer to its limit."""
    rms = Judgement(difference.rms, noise.rms, limit.rms, "rms")
    maximum = Judgement(difference.max_abs, noise.maximum, limit.maximum, "maximum")
    return maximum if maximum.excess > rms.excess else rms


@dataclass(frozen=True)
class Row:
    """The verdict on one tensor of one step, with the facts it rests on.

    `difference` is between the working-type recordings, `meaning` between the float64 ones, `precision` from the port's
    working type to the reference's float64. `allowance` is absolute, on the maximum: the threshold of the classic log.
    """

    step: str
    name: str
    kind: str
    verdict: str
    reason: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    headline: bool = False
    difference: Difference | None = None
    meaning: Judgement | None = None
    precision: Judgement | None = None
    noise: Noise | None = None
    allowance: float = 0.0
    matched_by: str | None = "name"  # `name`, `order`, `value` or `override`; None where nothing was matched
    waived: str | None = None

    @property
    def bad(self) -> bool:
        return self.verdict in ("misaligned", "missing")

    @property
    def excess(self) -> float:
        """How far the row is beyond what it is allowed, 1 at the limit: for finding the worst of many."""
        judged = [judgement.excess for judgement in (self.meaning, self.precision) if judgement]
        return max(judged, default=float("inf") if self.bad else 0.0)
