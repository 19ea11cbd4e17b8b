"""Batches that are mixed otherwise (mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899), and labels that are changed."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import equal
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.rows import RowEvidence

RANK = 7
IMAGES, LABELS = "data/mixup/images", "data/mixup/labels"  # of the plan


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or not evidence.name.startswith("mixup/"):
        return
    if evidence.port is None or evidence.reference is None:
        return
    port, reference = evidence.port, evidence.reference
    if evidence.leaf == "labels_after":
        yield Hypothesis(
            "changed-in-place",
            f"the labels that are given are {port.shape} afterwards in the port, {reference.shape} as before in the "
            "reference: changed in place",
            made=reference.reshape(port.shape) if port.size == reference.size else reference,
            wanted=port,
            change="work on a copy",
        )
    elif evidence.leaf == "lambda":
        yield from _not_corrected(evidence)
    elif evidence.leaf == "images":
        yield from _mixed(evidence, port)
    elif evidence.leaf == "targets":
        yield from _smoothed(evidence, port, reference)


def _not_corrected(evidence: RowEvidence) -> Iterator[Hypothesis]:
    """The sides of the box that lambda stands for are those of every box, wherever the border does not cut it."""
    ours, theirs = evidence.rows.port, evidence.rows.reference
    images = evidence.rows.plan.get(IMAGES)
    if images is None:
        return
    extent = images.shape[-2:]
    expected, real, telling = [], [], 0
    for name in theirs:
        box, lam = theirs.get(f"{name.rpartition('/')[0]}/box"), ours.get(name)
        if not name.endswith("/lambda") or box is None or box.shape != (4,) or lam is None:
            continue
        side = np.sqrt(1 - float(lam))
        for axis, size in enumerate(extent):
            low, high = (int(end) for end in box[2 * axis : 2 * axis + 2])
            if low > 0 and high < size:
                expected.append(float(int(size * side)))
                real.append(float(high - low))
                # The border cuts the other axis, which the reference's lambda takes into account.
                telling += int(size * np.sqrt(1 - float(theirs[name]))) != high - low
    if telling:
        yield Hypothesis(
            "lambda-not-corrected",
            f"lambda {_number(evidence.port):.6g} in the port is that of the box before the border cuts it, "
            f"{_number(evidence.reference):.6g} in the reference that of the box's real area",
            made=np.array(expected),
            wanted=np.array(real),
            fitted=1,
            change="lambda = 1 - (area of the cut box) / (area of the image)",
        )


def _mixed(evidence: RowEvidence, port: np.ndarray) -> Iterator[Hypothesis]:
    given = evidence.rows.plan.get(IMAGES)
    chain = evidence.name.rpartition("/")[0]
    lam, box = (evidence.rows.reference.get(f"{chain}/{name}") for name in ("lambda", "box"))
    if given is None or given.shape != port.shape or lam is None:
        return
    images, share = given.astype(np.float64), _number(lam)
    yield Hypothesis("unmixed-batch", "the port leaves the batch as it is", made=images, wanted=port)
    partners = {
        "its mirror image in the batch": images[::-1],
        "the next of the batch": np.roll(images, -1, 0),
        "the one before in the batch": np.roll(images, 1, 0),
    }
    for told, partner in partners.items():
        if box is not None and box.shape == (4,):
            top, bottom, left, right = (int(end) for end in box)
            boxes = {"": (top, bottom, left, right), "axes": (left, right, top, bottom)}
            for swapped, (first, last, begin, end) in boxes.items():
                made = images.copy()
                made[:, :, first:last, begin:end] = partner[:, :, first:last, begin:end]
                yield Hypothesis(
                    "cutmix-axes" if swapped else "mixup-partner",
                    f"the box of CutMix, rows {top}:{bottom} and columns {left}:{right} in the reference, is rows "
                    f"{first}:{last} and columns {begin}:{end} of {told} in the port",
                    made=made,
                    wanted=port,
                    change=f"[:, :, {top}:{bottom}, {left}:{right}]" if swapped else None,
                )
            continue
        for whole, part in ((share, 1 - share), (1 - share, share)):
            yield Hypothesis(
                "mixup-partner" if whole == share else "mixup-share",
                f"the port mixes {whole:.6g} of an image with {part:.6g} of {told}",
                made=images * whole + partner * part,
                wanted=port,
            )


def _smoothed(evidence: RowEvidence, port: np.ndarray, reference: np.ndarray) -> Iterator[Hypothesis]:
    """Targets are on + off times what the labels, mixed, would be without smoothing; both numbers are solved for."""
    labels = evidence.rows.plan.get(LABELS)
    lam = evidence.rows.reference.get(f"{evidence.name.rpartition('/')[0]}/lambda")
    if labels is None or lam is None or port.ndim != 2 or port.shape != reference.shape:
        return
    classes, share = port.shape[1], _number(lam)
    plain = np.eye(classes)[labels.astype(int)]
    mixed = plain * share + plain[::-1] * (1 - share)
    basis = np.stack([mixed.reshape(-1), np.ones(mixed.size)], 1)
    (ours, off), (theirs, right_off) = (
        np.linalg.lstsq(basis, side.reshape(-1), rcond=None)[0] for side in (port, reference)
    )
    if not equal(theirs * mixed + right_off, reference):
        return
    formula = abs(off - right_off) <= 1e-9 * abs(right_off)
    yield Hypothesis(
        "smoothing-formula" if formula else "label-smoothing",
        f"the label's class has {ours + off:.9g} in the port, {theirs + right_off:.9g} in the reference; every other "
        f"{off:.9g} and {right_off:.9g}",
        made=ours * mixed + off,
        wanted=port,
        fitted=2,
        change=f"{theirs + right_off:.9g} for the label's class, {right_off:.9g} for the others",
    )


def _number(array: np.ndarray | None) -> float:
    return float("nan") if array is None else float(np.asarray(array).reshape(-1)[0])
