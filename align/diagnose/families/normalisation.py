"""Normalisations called as functions: another epsilon, solved for; or weight and bias left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from align.diagnose.arrays import equal, varied
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.modules import ModuleEvidence
from align.diagnose.numbers import told

RANK = 61


@dataclass(frozen=True)
class Normalisation:
    """Over which axes mean and (biased) variance are taken, and along which weight and bias lie."""

    name: str
    axes: tuple[int, ...]
    channel: int

    def apply(self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, epsilon: float) -> np.ndarray:
        mean, variance = x.mean(self.axes, keepdims=True), x.var(self.axes, keepdims=True)
        made = (x - mean) / np.sqrt(variance + epsilon)
        return made * self._along(weight, x, 1.0) + self._along(bias, x, 0.0)

    def epsilon(
        self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, made: np.ndarray
    ) -> float | None:
        """The one with which this was made; None if there is none. The row of least variance tells it best."""
        factor = self._along(weight, x, 1.0)
        if not np.all(factor):
            return None
        centred = x - x.mean(self.axes, keepdims=True)
        variance = x.var(self.axes).reshape(-1)
        plain = (made - self._along(bias, x, 0.0)) / factor
        with np.errstate(all="ignore"):  # a channel of one value tells nothing
            slope = ((plain * centred).sum(self.axes) / np.square(centred).sum(self.axes)).reshape(-1)
        if not variance.any():
            return None
        best = int(np.argmin(np.where(variance > 0, variance, np.inf)))
        if slope[best] == 0:
            return None
        solved = float(1 / slope[best] ** 2 - variance[best])
        if not solved > 0:
            return None
        for digits in (1, 2, 17):  # what people write, before what was measured
            epsilon = float(np.float32(float(f"{solved:.{digits - 1}e}"))) if digits < 17 else solved
            if equal(self.apply(x, weight, bias, epsilon), made):
                return epsilon
        return None

    def _along(self, vector: np.ndarray | None, x: np.ndarray, without: float) -> np.ndarray | float:
        if vector is None:
            return without
        return vector.reshape([-1 if axis == self.channel % x.ndim else 1 for axis in range(x.ndim)])


def normalisations(rank: int) -> Iterator[Normalisation]:
    yield Normalisation("layer-norm", (-1,), -1)
    if rank > 2:
        yield Normalisation("instance-norm", tuple(range(2, rank)), 1)
        yield Normalisation("batch-norm", (0, *range(2, rank)), 1)


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, ModuleEvidence) or not evidence.pair or evidence.gradient:
        return
    port, reference = evidence.pair
    yield from _without_affine(evidence, port, reference)
    for name, x in evidence.inputs:
        if x.shape != port.shape or not varied(x) or x.ndim < 2:
            continue
        vectors = [vector for _, vector in evidence.inputs if vector.ndim == 1][:2]
        weight, bias = [*vectors, None, None][:2]
        for kind in normalisations(x.ndim):
            if weight is not None and weight.size != x.shape[kind.channel]:
                continue
            ours = kind.epsilon(x, weight, bias, port)
            theirs = kind.epsilon(x, weight, bias, reference) if ours is not None else None
            if ours is not None and theirs is not None and ours != theirs:
                yield Hypothesis(
                    f"{kind.name}-epsilon",
                    f"{kind.name.replace('-', ' ')} of {name}: "
                    f"epsilon {told(ours)} in the port, {told(theirs)} in the reference",
                    made=kind.apply(x, weight, bias, theirs),
                    wanted=reference,
                    change=f"epsilon={told(theirs)}",
                )


def _without_affine(evidence: Evidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    """The reference's is the port's times a weight, plus a bias of the same module."""
    for name, weight in evidence.values.items():
        bias = evidence.values.get(name.removesuffix(".weight") + ".bias")
        if not name.startswith("parameter") or bias is None or weight.ndim != 1 or bias.shape != weight.shape:
            continue
        for channel in {port.ndim - 1, min(1, port.ndim - 1)}:
            if port.shape[channel] != weight.size:
                continue
            shape = [-1 if axis == channel else 1 for axis in range(port.ndim)]
            made = port * weight.reshape(shape) + bias.reshape(shape)
            if equal(made, reference):
                module = name.removeprefix("parameter ").removesuffix(".weight")
                text = f"the port leaves out weight and bias of {module}"
                yield Hypothesis("missing-affine", text, made, reference, change="multiply by the weight, add the bias")
