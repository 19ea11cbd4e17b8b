"""A large tensor in 64 numbers, the same of both sides: some of its elements, and weighted sums over all of them.

The sums are random projections (Johnson and Lindenstrauss 1984) of one stretch of the flat tensor each: linear, so that
the difference of two thinned tensors is the thinned difference, and scaled, so that its root mean square estimates the
full one. What a thinned row is judged by is therefore the same rule, with the same noise, as a whole row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from blake3 import blake3

from align.errors import UsageError
from align.record.fingerprint import table
from align.record.store import Entry, Store
from align.steps import STATISTICAL, WITHOUT_TWIN

WHOLE = 64  # elements up to which a tensor is kept as it is
SAMPLES, STRETCHES = 16, 48  # of a larger one: elements, and sums
CURVE = 4096  # of a curve, which a report shows
DRAWN = 1024  # values kept of a sample of `init`
PERIOD = 262_139  # of the weights: a prime, so that no axis of a tensor has it
THINNED = "thinned"  # after a step's name: the store of what was thinned; and the fact of an entry that says how
SUMS, BYTES, CHOSEN = "sums", "bytes", "chosen"


def how(step: str, entry: Entry) -> str | None:
    """In which way a tensor of a step is thinned; None if it is kept whole.

    `sums`: numbers that round. `bytes`: what must be equal, by some elements and the hash of all. `chosen`: values that
    a side drew for itself, by a random part of them, which is a sample of the same distribution.
    """
    size = int(np.prod(entry.shape))
    if step in STATISTICAL and entry.name.endswith("/sample"):
        return CHOSEN if size > DRAWN else None
    if size <= WHOLE or (entry.kind == "curve" and len(entry.shape) == 1 and size <= CURVE):
        return None
    exact = step in WITHOUT_TWIN or not entry.dtype.startswith(("float", "bfloat"))
    return BYTES if exact else SUMS


def thin(array: np.ndarray, way: str) -> np.ndarray:
    """`sums`: (64,) float64, SAMPLES elements and STRETCHES sums; `bytes`: (16,); `chosen`: (1024,), order kept."""
    flat = array.reshape(-1)
    if way == BYTES:
        return flat[places(flat.size, SAMPLES)]
    if way == CHOSEN:
        return flat[np.sort(np.argsort(_weights(flat.size), kind="stable")[:DRAWN])]
    values, weights = flat.astype(np.float64), _weights(flat.size)
    ends = stretches(flat.size)
    with np.errstate(invalid="ignore"):  # infinities of opposite signs
        sums = np.add.reduceat(values * weights, ends)
    return np.concatenate([values[places(flat.size, SAMPLES)], sums / np.sqrt(np.add.reduceat(weights**2, ends))])


def size_of(way: str) -> int:
    """How many numbers `thin` leaves."""
    return {SUMS: SAMPLES + STRETCHES, BYTES: SAMPLES, CHOSEN: DRAWN}[way]


def digest(array: np.ndarray) -> str:
    """Of type, shape and values: -0 is 0 and every NaN the same, as in a comparison."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.nan, array + 0.0).astype(array.dtype)
    return blake3(f"{array.dtype.name} {array.shape} ".encode() + array.tobytes()).hexdigest()


@lru_cache(maxsize=256)
def places(size: int, count: int) -> np.ndarray:
    """Flat indices of `count` elements of a tensor of `size`, ascending, one at random in each of so many parts."""
    edges = np.arange(count + 1) * size // count
    chance = (table(count) + 1) / 2
    return edges[:-1] + np.minimum((chance * np.diff(edges)).astype(np.int64), np.diff(edges) - 1)


def stretches(size: int) -> np.ndarray:
    """Where each of the STRETCHES parts of a flat tensor of at least so many elements begins."""
    return np.arange(STRETCHES) * size // STRETCHES


def _weights(size: int) -> np.ndarray:
    """(size,) in -1 to 1. Not signs: two elements that changed places would leave a sum as it was."""
    period = _period()
    return period[:size] if size <= PERIOD else np.resize(period, size)


@lru_cache(maxsize=1)
def _period() -> np.ndarray:
    return table(PERIOD)


@dataclass(frozen=True)
class ThinnedReference:
    """A step of a golden recording: whole tensors, and of the others what `thin` left."""

    store: Store
    thinned: Store

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.store.entries

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        way = way_of(entry)
        if way is None:
            return self.store[name]
        array = self.thinned[name]
        if array.shape != (size_of(way),):
            raise UsageError(f"{self.store.folder}: {name} is not what {way!r} leaves of a tensor; freeze it again")
        return np.append(array, np.zeros(1, array.dtype)) if way == BYTES else array


@dataclass(frozen=True)
class ThinnedPort:
    """A step of the port, thinned as the reference's is.

    Of what must be equal the last number is 0, and 1 where the bytes are not those of the reference.
    """

    step: str
    store: Store
    reference: Mapping[str, Entry]

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.store.entries

    def __getitem__(self, name: str) -> np.ndarray:
        array, theirs = self.store[name], self.reference.get(name)
        way = how(self.step, self.entries[name]) if theirs is None else way_of(theirs)
        if way is None or array.size < size_of(way):
            return array
        if way != BYTES:
            return thin(array, way)
        told = (theirs.facts or {}).get("blake3") if theirs else None
        return np.append(thin(array, way), np.array([digest(array) != told], array.dtype))


def way_of(entry: Entry) -> str | None:
    """How an entry of a golden recording was thinned; None for what is whole."""
    return (entry.facts or {}).get(THINNED)
