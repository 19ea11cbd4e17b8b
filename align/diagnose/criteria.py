"""The losses of the step `loss` in numpy, as sums of terms, and what a port may have made of them instead.

Cross entropy, label smoothing (Szegedy et al., arXiv 1512.00567) and DeiT's distillation (arXiv 2012.12877, equations 2
and 3). A gradient is a complex step, exact in float64: Squire and Trapp, "Using complex variables to estimate
derivatives of real functions", SIAM Review 40 (1998).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

STEP = 1e-100  # of the complex step: its square vanishes

# (class logits, distillation logits), each (..., N, C) -> (..., N): what every sample adds to a loss.
Function = Callable[[np.ndarray, np.ndarray], np.ndarray]


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis; real or complex."""
    shifted = x - x.real.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(x))


def label(log_probabilities: np.ndarray, target: np.ndarray) -> np.ndarray:
    """-log p of the labels (N,), 0 where one is negative: (..., N, C) -> (..., N)."""
    taken = np.take_along_axis(
        log_probabilities, np.broadcast_to(np.maximum(target, 0)[:, None], (*log_probabilities.shape[:-1], 1)), -1
    )[..., 0]
    return -taken * (target >= 0)


@dataclass(frozen=True)
class Given:
    """What the plan gives every loss: logits (N, C), labels (N,) and a recipe, as float64."""

    logits: np.ndarray
    logits_kd: np.ndarray
    teacher: np.ndarray
    target: np.ndarray
    ignored: np.ndarray
    soft: np.ndarray
    smoothing: float = 0.1
    alpha: float = 0.3
    tau: float = 3.0

    @property
    def batch(self) -> int:
        return len(self.logits)

    @property
    def classes(self) -> int:
        return self.logits.shape[1]


@dataclass(frozen=True)
class Term:
    """One part of a loss, summed over the samples, and its weight."""

    function: Function
    weight: float


@dataclass(frozen=True)
class Criterion:
    """A loss: its terms by name (`label`, `uniform`, `soft`, `kl`, `hard`), on what the plan gives."""

    given: Given
    terms: Mapping[str, Term]

    def changed(self, name: str, function: Function | None = None, weight: float | None = None) -> "Criterion":
        """With one term of another function or weight."""
        term = self.terms[name]
        term = Term(function or term.function, term.weight if weight is None else weight)
        return replace(self, terms={**self.terms, name: term})

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """Of every term, without its weight: (1 + 2 N C,), the value and the gradients of both heads' logits."""
        return {name: measured(self.given, term.function) for name, term in self.terms.items()}

    def vector(self) -> np.ndarray:
        return np.sum([self.terms[name].weight * part for name, part in self.parts.items()], 0)


def measured(given: Given, function: Function) -> np.ndarray:
    """The sum over the samples, and its derivatives by `logits` and `logits_kd`, in one vector."""
    heads = [given.logits, given.logits_kd]
    found = [np.array([function(*heads).sum().real])]
    for which in (0, 1):
        # A sample's logits reach its own part of the loss only: one class of every sample is moved at once.
        moved = [head.astype(np.complex128) for head in heads]
        columns = []
        for c in range(given.classes):
            moved[which] = heads[which].astype(np.complex128)
            moved[which][:, c] += STEP * 1j
            columns.append(function(*moved).imag / STEP)
        found.append(np.stack(columns, -1).reshape(-1))
    return np.concatenate(found)


def divergence(student: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Kullback-Leibler of the target's distribution (N, C) from the student's, both as logarithms."""
    return (np.exp(target) * (target - student)).sum(-1)


def criteria(given: Given) -> dict[str, Criterion]:
    """Every loss of the step by its name, as the reference defines it."""
    n, s, a = given.batch, given.smoothing, given.alpha
    valid = int((given.ignored >= 0).sum())
    teacher = log_softmax(given.teacher / given.tau)
    decided = given.teacher.argmax(1)
    smooth = {
        "label": Term(lambda x, _: label(log_softmax(x), given.target), (1 - s) / n),
        "uniform": Term(lambda x, _: -log_softmax(x).mean(-1), s / n),
    }
    base = {name: replace(term, weight=term.weight * (1 - a)) for name, term in smooth.items()}
    kl = Term(lambda _, x: divergence(log_softmax(x / given.tau), teacher), a * given.tau**2 / (n * given.classes))
    hard = Term(lambda _, x: label(log_softmax(x), decided), a / n)
    table: dict[str, Mapping[str, Term]] = {
        "cross_entropy": {"label": Term(smooth["label"].function, 1 / n)},
        "cross_entropy_ignored": {"label": Term(lambda x, _: label(log_softmax(x), given.ignored), 1 / valid)},
        "soft_target_cross_entropy": {"soft": Term(lambda x, _: -(given.soft * log_softmax(x)).sum(-1), 1 / n)},
        "label_smoothing": smooth,
        "distillation_none": smooth,
        "distillation_soft": {**base, "kl": kl},
        "distillation_hard": {**base, "hard": hard},
    }
    return {name: Criterion(given, terms) for name, terms in table.items()}
