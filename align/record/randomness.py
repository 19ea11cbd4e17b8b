"""The same random numbers for both sides: every draw is answered by a tape, made in numpy from a seed.

A draw is known by the module call in which it happens and by its place among that call's draws. A draw that one side
lacks therefore shifts none of the later ones, and what differs is blamed on the module that drew otherwise.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from align.record.arrangement import Slices, arrangement, slices

# Uniform numbers are the middles of 2^16 equal cells: exact in float32, never 0 or 1, and so far from every threshold
# that is no such middle that a comparison has one outcome, in whatever type it is made.
CELLS = 1 << 16


@dataclass(frozen=True)
class Draw:
    """One random draw: in which module call (empty outside all), which of its draws, and what was asked for.

    `settings` hold what the distribution was given: `keep` of a mask, `low` and `high`, `mean` and `std`.
    """

    module: str
    index: int
    kind: str
    shape: tuple[int, ...]
    settings: Mapping[str, float] = field(default_factory=dict)


class Tape:
    """Answers draws by (seed, scope, module call, index of the draw in that call), whatever the dtype or device.

    `scope` keeps passes apart: the same draws in another scope have other values. With `by_order`, for sides whose
    module trees have unlike names, the index counts all draws instead, and the module call does not matter.

    A mask keeps where u >= 1 - keep, with the u that `uniform` would answer in its place. So the three idioms
    `bernoulli(keep)`, `floor(keep + rand)` and `rand >= drop` give one mask. `rand < keep` gives another, of the same
    distribution; no number could satisfy it as well. A port that is written so is told to differ, and has to be turned.

    `laid` says how the reference's values lay under its draws, by (module call, index), see `align.record.arrangement`:
    a mask of the port goes where the same values lie. With `looking`, the tape keeps that of its own draws.
    """

    def __init__(
        self,
        seed: int,
        scope: str,
        *,
        by_order: bool = False,
        looking: bool = False,
        laid: Mapping[tuple[str, int], Slices] | None = None,
    ) -> None:
        self.seed, self.scope, self.by_order, self.looking = seed, scope, by_order, looking
        self.log: list[Draw] = []
        self.laid: dict[tuple[str, int], Slices] = {}
        # Both are set by `Side.drawing`: the label of the module call that runs, and the tensors that it was given.
        self.running: Callable[[], str] = str
        self.given: Callable[[], Iterable[np.ndarray]] = tuple
        self._counts: Counter[str] = Counter()
        self._reference = laid or {}

    @property
    def follows(self) -> bool:
        """Whether it matters what a mask is applied to."""
        return self.looking or bool(self._reference)

    def bernoulli(
        self, keep: float | np.ndarray, shape: tuple[int, ...], onto: Callable[[], np.ndarray] | None = None
    ) -> np.ndarray:
        """A mask, bool, True with probability `keep` (a number, or an array that broadcasts to `shape`).

        Nothing is drawn where the answer is certain: some frameworks draw for a rate of 0, others do not.
        onto() is what the mask is applied to, where that is known; otherwise what the running call was given.
        """
        keep = np.asarray(keep, np.float64)
        if np.all((keep <= 0) | (keep >= 1)):
            return np.broadcast_to(keep >= 1, shape).copy()
        rng = self._next("mask", shape, keep=float(keep.mean()))
        return self._laid(rng, shape, onto) >= 1 - keep

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """float64 in (low, high)."""
        return low + (high - low) * self._laid(self._next("uniform", shape, low=low, high=high), shape)

    def normal(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """float64."""
        return mean + std * self._next("normal", shape, mean=mean, std=std).standard_normal(shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        """int64 in [low, high)."""
        return self._next("integers", shape, low=low, high=high).integers(low, high, shape)

    def permutation(self, n: int) -> np.ndarray:
        """0 ... n-1 shuffled, (n,) int64."""
        return self._next("permutation", (n,)).permutation(n)

    def choice(self, weights: np.ndarray, count: int, replacement: bool) -> np.ndarray:
        """Indices of the last axis, (..., count) int64, by `weights` (..., n), which need not add up to 1."""
        shape = (*weights.shape[:-1], count)
        rng = self._next("choice", shape)
        weights = weights.astype(np.float64)
        if not replacement:
            # The greatest of log w + Gumbel noise is distributed as w (Kool et al., arXiv 1903.06059).
            with np.errstate(divide="ignore"):
                keys = np.log(weights) - np.log(-np.log(_uniform(rng, weights.shape)))
            return np.argsort(-keys, axis=-1, kind="stable")[..., :count]
        edges = np.cumsum(weights, axis=-1)
        found = _uniform(rng, shape)[..., None] * edges[..., None, -1:] >= edges[..., None, :]
        return found.sum(-1)

    def _laid(
        self, rng: np.random.Generator, shape: tuple[int, ...], onto: Callable[[], np.ndarray] | None = None
    ) -> np.ndarray:
        """Uniform numbers of the last draw, where the reference's values lie."""
        last = self.log[-1].module, self.log[-1].index
        if not self.looking and last not in self._reference:
            return _uniform(rng, shape)
        arrays = (onto(),) if onto else self.given()
        own = next((found for array in arrays if (found := slices(array, shape))), None)
        if own is None:
            return _uniform(rng, shape)
        if self.looking:
            self.laid[last] = own
            return _uniform(rng, shape)
        theirs = self._reference[last]
        laid = arrangement(own, theirs)
        return laid.of(_uniform(rng, theirs.shape)) if laid else _uniform(rng, shape)

    def _next(self, kind: str, shape: tuple[int, ...], **settings: float) -> np.random.Generator:
        module = self.running()
        counted = "" if self.by_order else module
        index = self._counts[counted]
        self._counts[counted] += 1
        self.log.append(Draw(counted, index, kind, tuple(shape), settings))
        digest = blake3(f"{self.seed}/{self.scope}/{counted}/{index}".encode()).digest(length=16)
        return np.random.default_rng(int.from_bytes(digest, "little"))


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.integers(0, CELLS, shape, np.uint16) + 0.5) / CELLS
