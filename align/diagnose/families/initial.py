"""Another initial distribution: its name and its numbers on both sides, or by what factor its width is another."""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

from align.compare.distributions import one_distribution
from align.diagnose.arrays import varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.rows import RowEvidence

RANK = 6
CUT = 2.0  # standard deviations at which both frameworks cut a normal distribution, unless told otherwise
SMALL = 16  # factors are compared with square roots of ratios of numbers up to this
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
    factor = float(np.std(port) / np.std(reference))
    change = f"initialise by {distribution(reference)}"
    yield Hypothesis(
        "initial-scale",
        f"{told}: {factor:.4g} times as wide{_as_root(factor, port)}",
        made=port / factor,
        wanted=reference,
        fitted=1,
        alike=True,
        change=change,
    )
    shift = float(np.mean(port) - np.mean(reference))
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


def _shares(size: int) -> np.ndarray:
    return (np.arange(size) + 0.5) / size


def _uniform(sample: np.ndarray) -> np.ndarray:
    half = math.sqrt(3) * float(np.std(sample))
    return np.mean(sample) + half * (2 * _shares(sample.size) - 1)


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
    """The simplest root of a ratio that the factor cannot be told from; empty if that says nothing."""
    error = ERRORS * factor / math.sqrt(sample.size)
    for whole in range(1, SMALL + 1):
        for ratio, text in ((whole, f"sqrt({whole})"), (1 / whole, f"1/sqrt({whole})")):
            root = math.sqrt(ratio)
            if whole > 1 and abs(root - factor) <= error:
                text = text.replace(f"sqrt({whole})", str(math.isqrt(whole))) if root.is_integer() else text
                return f", about {text}"
    return ""
