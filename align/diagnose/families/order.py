"""The order of an epoch: its length, the batches it is cut into, and what its shuffle depends on."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.rows import RowEvidence

RANK = 8
LEAST = 4  # images that one must see to speak of an order


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or not evidence.name.startswith("sampler/"):
        return
    port, reference = evidence.port, evidence.reference
    if port is None or reference is None or port.ndim != 1 or reference.ndim != 1:
        return
    families = {"sizes": _batches, "reshuffled": _reshuffled}
    yield from families.get(evidence.leaf, _indices)(evidence, port, reference)


def _reshuffled(_: RowEvidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    """Whether an epoch has its order again, and whether another has the same: see `align/steps/data.py`."""
    for made, told in (
        ((1.0, 1.0), "every epoch has the same order"),
        ((0.0, 0.0), "an epoch has another order each time: its number does not decide"),
    ):
        if port.shape == (2,):
            wanted = "its number decides on an epoch's order in the reference"
            yield Hypothesis(
                "shuffle-seed",
                f"in the port {told}; {wanted}",
                made=np.array(made),
                wanted=port,
                change="seed the shuffle by the epoch's number",
            )


def _batches(evidence: RowEvidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    """A row of sizes ends with how many batches and images there are."""
    *whole, count, images = reference
    rest = images - sum(whole)
    if rest > 0:
        yield Hypothesis(
            "drop-last",
            f"the ragged last batch of {rest:g} is kept in the port, dropped in the reference",
            made=np.array([*whole, rest, count + 1, images]),
            wanted=port,
            change="drop_last=True",
        )
    if len(whole) > 1 and whole[-1] != whole[0]:
        yield Hypothesis(
            "drop-last",
            f"the ragged last batch of {whole[-1]:g} is dropped in the port, kept in the reference",
            made=np.array([*whole[:-1], count - 1, images]),
            wanted=port,
            change="drop_last=False",
        )


def _indices(evidence: RowEvidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    common = min(port.size, reference.size)
    if port.size != reference.size and common >= LEAST:
        yield Hypothesis(
            "epoch-length",
            f"{evidence.name} shows {port.size} images in the port, {reference.size} in the reference; the first "
            f"{common} are the same",
            made=port[:common],
            wanted=reference[:common],
            change=f"{reference.size} images",
        )
    if common < LEAST:
        return
    head, _, epoch = evidence.name.rpartition("/")
    for name, other in evidence.rows.reference.items():
        before, _, number = name.rpartition("/")
        if before == head and number != epoch and other.shape == port.shape:
            yield Hypothesis(
                "shuffle-seed",
                f"epoch {epoch} has the order in the port that epoch {number} has in the reference",
                made=other.astype(np.float64),
                wanted=port,
                change="seed the shuffle by the epoch's number",
            )
    yield Hypothesis(
        "not-shuffled",
        "the port's order is that of the images: it is not shuffled",
        made=np.sort(port),
        wanted=port,
    )
    ours, theirs = (_repeats(side) for side in (port, reference))
    distinct = common // max(ours, theirs)
    if ours != theirs and distinct >= LEAST:
        yield Hypothesis(
            "repeats",
            f"an image comes {ours} times in a row in the port, {theirs} times in the reference, in the same order",
            made=port[::ours][:distinct],
            wanted=reference[::theirs][:distinct],
        )


def _repeats(order: np.ndarray) -> int:
    """How often the first image comes in a row."""
    other = np.flatnonzero(order != order[0])
    return int(other[0]) if other.size else order.size
