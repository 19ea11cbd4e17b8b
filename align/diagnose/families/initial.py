"""Another initial distribution: its name and its numbers on both sides, or by what factor its width is another."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from statistics import NormalDist

import numpy as np

from align.compare.distributions import one_distribution
from align.diagnose.arrays import varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.rows import RowEvidence

RANK = 6
CUT = 2.0  # standard deviations at which both frameworks cut a normal distribution, unless told otherwise
# Factors are compared with the square roots of these, the simplest first.
RATIOS = sorted(
    {Fraction(a, b) for a in range(1, 17) for b in range(1, 17) if min(a, b) < 4},
    key=lambda ratio: ratio.numerator + ratio.denominator,
)
ERRORS = 3  # standard errors within which a factor may be called by such a root


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.step != "init":
        return
    name = evidence.name.rpartition("/")[0]
    port, reference = (side.get(f"{name}/sample") for side in (evidence.rows.port, evidence.rows.reference))
    if port is None or reference is None or port.shape != reference.shape:
        return
    port, reference = port.astype(np.float64), reference.astype(np.float64)
    told = f"{name} is {distribution(port)} in the port, {distribution(reference)} in the reference"
    if not varied(port) or not varied(reference):
        constant = port if not varied(port) else reference
        yield Hypothesis(
            "initial-distribution",
            told,
            made=np.full(constant.shape, constant[0]),
            wanted=constant,
            fitted=1,
            change=f"initialise by {distribution(reference)}",
        )
        return
    change = f"initialise by {distribution(reference)}"
    for width in (np.ptp, np.std):  # of a distribution that ends, the ends tell the factor more exactly
        factor = float(width(port) / width(reference))
        yield Hypothesis(
            "initial-scale",
            f"{told}: {factor:.4g} times as wide{_as_root(factor, port)}",
            made=port / factor,
            wanted=reference,
            fitted=1,
            alike=True,
            change=change,
        )
    for middle in (_midrange, np.mean):
        shift = float(middle(port) - middle(reference))
        yield Hypothesis(
            "initial-mean",
            f"{told}: its mean is {shift:.4g} more",
            made=port - shift,
            wanted=reference,
            fitted=1,
            alike=True,
            change=change,
        )
    ours, theirs = kind(port), kind(reference)
    if ours and theirs and ours != theirs:
        yield Hypothesis(
            "initial-distribution", told, made=KINDS[ours](port), wanted=port, fitted=1, alike=True, change=change
        )


def distribution(sample: np.ndarray) -> str:
    """A sample's distribution in short: its name where one fits, and its numbers."""
    if not varied(sample):
        return f"constant {sample.reshape(-1)[0]:.6g}"
    named, std = kind(sample), float(np.std(sample))
    if named == "uniform":
        low, high = float(sample.min()), float(sample.max())
        centred = abs(low + high) < 0.05 * (high - low)
        return f"uniform(±{max(-low, high):.4g})" if centred else f"uniform({low:.4g}, {high:.4g})"
    if named:
        return f"{named}(mean {np.mean(sample):.2g}, std {std:.4g})"
    return f"random in [{sample.min():.4g}, {sample.max():.4g}] with std {std:.4g}"


def kind(sample: np.ndarray) -> str | None:
    """The name of the distribution that a sample has, at its own mean and standard deviation; None for another."""
    return next((name for name, quantiles in KINDS.items() if one_distribution(quantiles(sample), sample)), None)


def _midrange(sample: np.ndarray) -> float:
    return float(sample.min() + sample.max()) / 2


def _shares(size: int) -> np.ndarray:
    return (np.arange(size) + 0.5) / size


def _uniform(sample: np.ndarray) -> np.ndarray:
    return sample.min() + (sample.max() - sample.min()) * _shares(sample.size)


def _normal(sample: np.ndarray) -> np.ndarray:
    return np.mean(sample) + np.std(sample) * _standard(_shares(sample.size))


def _truncated(sample: np.ndarray) -> np.ndarray:
    """Cut at `CUT` of its own deviations, then as wide as the sample."""
    outside = NormalDist().cdf(-CUT)
    shape = _standard(outside + (1 - 2 * outside) * _shares(sample.size))
    return np.mean(sample) + np.std(sample) / np.std(shape) * shape


def _standard(shares: np.ndarray) -> np.ndarray:
    return np.array([NormalDist().inv_cdf(float(share)) for share in shares])


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uniform": _uniform,
    "normal": _normal,
    "truncated normal": _truncated,
}


def _as_root(factor: float, sample: np.ndarray) -> str:
    """The simplest root of a ratio that the factor cannot be told from; empty if there is none."""
    centred = sample - sample.mean()
    kurtosis = float(np.mean(centred**4) / np.mean(centred**2) ** 2)
    error = ERRORS * factor * math.sqrt((kurtosis - 1) / (2 * sample.size))  # of a quotient of two deviations
    for ratio in RATIOS:
        if ratio != 1 and abs(math.sqrt(ratio) - factor) <= error:
            above, below = math.isqrt(ratio.numerator), math.isqrt(ratio.denominator)
            exact = Fraction(above, below)
            return f", about {exact if exact**2 == ratio else f'sqrt({ratio})'}"
    return ""
