"""Accuracies that are counted or averaged in another way: all of the step's numbers are made again from the logits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.rows import RowEvidence
from align.steps.metric import BATCH, labels_at_ranks

RANK = 2
ROWS = ("acc1", "acc5", "evaluate/acc1", "evaluate/acc5", "evaluate/samples")
KS = (1, 5)
GREATEST = 10  # k that is tried

# (logits (N, classes), targets (N,), k) -> a number
Accuracy = Callable[[np.ndarray, np.ndarray, int], float]
# (accuracies of the batches, their sizes) -> (the whole's, how many samples)
Mean = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]


@dataclass(frozen=True)
class Counted:
    """One way to count: `told` of the port, and what the reference does."""

    id: str
    told: str
    accuracy: Accuracy
    ks: tuple[int, int] = KS


@dataclass(frozen=True)
class Averaged:
    id: str
    told: str
    mean: Mean


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.step != "metric":
        return
    rows, plan = evidence.rows, evidence.rows.plan
    logits = rows.steps.get("forward", {}).get("logits")
    if logits is None or not {"metric/logits", "metric/target"} <= plan.keys():
        return
    if any(name not in side or side[name].size != 1 for name in ROWS for side in (rows.port, rows.reference)):
        return
    port, reference = (
        np.array([float(side[name].reshape(-1)[0]) for name in ROWS]) for side in (rows.port, rows.reference)
    )
    one = logits, labels_at_ranks(logits)
    table, target = plan["metric/logits"], plan["metric/target"]
    many = [(table[i : i + BATCH], target[i : i + BATCH]) for i in range(0, len(table), BATCH)]
    right = Counted("", "", accuracy), Averaged("", "", weighted)
    if not np.allclose(_numbers(one, many, *right), reference, rtol=1e-12):
        return  # another metric than this one
    ways = [*((way, right[1]) for way in COUNTED), *((right[0], way) for way in AVERAGED)]
    for counted, averaged in ways:
        way = counted if counted.id else averaged
        yield Hypothesis(
            way.id,
            f"{way.told}: {evidence.name} {_number(evidence.port):.6g} in the port, "
            f"{_number(evidence.reference):.6g} in the reference",
            made=_numbers(one, many, counted, averaged),
            wanted=port,
        )


def _numbers(
    one: tuple[np.ndarray, np.ndarray],
    many: Sequence[tuple[np.ndarray, np.ndarray]],
    counted: Counted,
    averaged: Averaged,
) -> np.ndarray:
    """What the rows are if accuracies are counted and averaged so."""
    sizes = np.array([float(len(targets)) for _, targets in many])
    whole = []
    for k in counted.ks:
        each = np.array([counted.accuracy(logits, targets, k) for logits, targets in many])
        whole.append(averaged.mean(each, sizes))
    (acc1, samples), (acc5, _) = whole
    return np.array([*(counted.accuracy(*one, k) for k in counted.ks), acc1, acc5, samples])


def hits(logits: np.ndarray, targets: np.ndarray, k: int) -> float:
    """How many labels (N,) are among the k greatest of logits (N, classes)."""
    order = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :k]
    return float((order == targets.reshape(-1, 1)).sum())


def accuracy(logits: np.ndarray, targets: np.ndarray, k: int) -> float:
    return hits(logits, targets, k) / len(targets)


def weighted(each: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    return float(each @ sizes / sizes.sum()), float(sizes.sum())


def _number(array: np.ndarray | None) -> float:
    return float("nan") if array is None else float(array.reshape(-1)[0])


def _other_ks() -> list[Counted]:
    pairs = sorted(product(range(1, GREATEST + 1), repeat=2), key=lambda pair: abs(pair[0] - 1) + abs(pair[1] - 5))
    told = "top-{} and top-{} where the reference takes top-1 and top-5"
    return [Counted("top-k", told.format(*pair), accuracy, (pair[0], pair[1])) for pair in pairs if pair != KS]


COUNTED = [
    Counted("accuracy-scale", "percent, where the reference has fractions", lambda x, y, k: 100 * accuracy(x, y, k)),
    Counted("accuracy-scale", "counts, where the reference has fractions", hits),
    Counted("sample-count", "one sample too many in the divisor", lambda x, y, k: hits(x, y, k) / (len(y) + 1)),
    Counted("sample-count", "one sample too few in the divisor", lambda x, y, k: hits(x, y, k) / max(len(y) - 1, 1)),
    Counted("accuracy-scale", "divided by k as well", lambda x, y, k: accuracy(x, y, k) / k),
    Counted("error-for-accuracy", "errors, where the reference has accuracies", lambda x, y, k: 1 - accuracy(x, y, k)),
    Counted("least-logits", "the least logits instead of the greatest", lambda x, y, k: accuracy(-x, y, k)),
    *_other_ks(),
]
AVERAGED = [
    Averaged(
        "mean-of-batches", "every batch counts alike, whatever its size", lambda e, n: (float(e.mean()), float(n.sum()))
    ),
    Averaged("mean-of-batches", "every batch counts as one sample", lambda e, n: (e.mean(), len(n))),
    Averaged("last-batch-dropped", "the last batch is left out", lambda e, n: weighted(e[:-1], n[:-1])),
    Averaged("first-batch-dropped", "the first batch is left out", lambda e, n: weighted(e[1:], n[1:])),
    Averaged("last-batch-only", "only the last batch counts", lambda e, n: (e[-1] * n[-1] / n.sum(), n.sum())),
    Averaged("last-batch-only", "only the last batch is looked at", lambda e, n: (e[-1], n[-1])),
    Averaged("last-batch-only", "only the last batch's hits count", lambda e, n: (e[-1], n.sum())),
    Averaged("first-batch-only", "only the first batch is looked at", lambda e, n: (e[0], n[0])),
    Averaged("sum-for-mean", "sums over the samples are not divided", lambda e, n: (e @ n, n.sum())),
    Averaged("sum-for-mean", "the batches' numbers are added", lambda e, n: (e.sum(), n.sum())),
    Averaged("sum-for-mean", "sums of batch means divided by samples", lambda e, n: (e.sum() / n.sum(), n.sum())),
    Averaged("sample-count", "divided by a sample too many", lambda e, n: (e @ n / (n.sum() + 1), n.sum())),
]
