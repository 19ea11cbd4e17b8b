"""Pixels that are normalised by other numbers, mirrored, turned, or with their channels the other way round."""

from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import equal
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.families.resampling import is_image, sources
from align.diagnose.rows import RowEvidence

RANK = 4
SAME = 1e-10  # relative: two solved numbers this near are one
ROUNDED = 1e-5  # a factor this near to 1 is a constant with too few digits
DIGITS = 9


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.step != "data":
        return
    port, reference = evidence.port, evidence.reference
    if port is None and reference is not None:
        yield from _left_out(evidence)
    if port is None or reference is None or port.ndim != 3:
        return
    found = list(sources(evidence.rows, evidence.name)) if evidence.name in evidence.rows.reference else []
    for name, source in found:
        if source.shape == port.shape:
            yield Hypothesis(
                "missing-stage",
                f"{evidence.leaf} is {name} unchanged in the port",
                made=source.astype(np.float64),
                wanted=port,
            )
    yield from _moved(port, reference, 2 if reference.shape[2] == 3 else 0)
    for name, source in found:
        if is_image(source) and reference.shape == (3, *source.shape[:2]):
            yield from _normalised(evidence, name, source.astype(np.float64).transpose(2, 0, 1) / 255)


def _left_out(evidence: RowEvidence) -> Iterator[Hypothesis]:
    """The stage is missing everywhere: without its rows, the names of both sides are the same."""
    names = list({**evidence.rows.reference, **evidence.rows.port})
    ours, theirs = (
        np.array([float(name in side) for name in names]) for side in (evidence.rows.port, evidence.rows.reference)
    )
    own = [index for index, name in enumerate(names) if name.rpartition("/")[2] == evidence.leaf]
    theirs[own] = 0
    yield Hypothesis(
        "missing-stage",
        f"the port has no stage {evidence.leaf} in any of {len(own)} rows",
        made=theirs,
        wanted=ours,
        fitted=1,
        change=f"add the stage {evidence.leaf}",
    )


def _moved(port: np.ndarray, reference: np.ndarray, channels: int) -> Iterator[Hypothesis]:
    height, width = (axis for axis in range(3) if axis != channels)
    changes = {
        "channel-order": ("has its channels the other way round (BGR)", np.flip(reference, channels)),
        "flipped": ("has left and right exchanged", np.flip(reference, width)),
        "flipped-upside-down": ("is upside down", np.flip(reference, height)),
        "swapped-height-width": ("has height and width exchanged", np.swapaxes(reference, height, width)),
    }
    for id, (told, made) in changes.items():
        yield Hypothesis(id, f"the port's image {told}", made=made, wanted=port)
    for quarters in (1, 2, 3):
        turned = np.rot90(reference, quarters, (width, height))
        told = f"the port's image is turned by {90 * quarters} degrees clockwise"
        yield Hypothesis("rotated", told, made=turned, wanted=port)


def _normalised(evidence: RowEvidence, name: str, pixels: np.ndarray) -> Iterator[Hypothesis]:
    """`pixels` (3, H, W) in [0, 1]. Mean and standard deviation are solved for, a channel at a time."""
    port, reference = evidence.port, evidence.reference
    assert port is not None and reference is not None
    theirs = solved(pixels, reference)
    if theirs is None:
        return
    mean, std = theirs
    for id, told, other in _views(pixels):
        if other.shape == port.shape:
            made = (other - _column(mean)) / _column(std)
            yield Hypothesis(id, f"the port normalises {name} {told}", made=made, wanted=port)
    ours = solved(pixels, port)
    if ours is None:
        return
    made = (pixels - _column(ours[0])) / _column(ours[1])
    id, text = _numbers(ours, theirs)
    yield Hypothesis(
        id, text, made=made, wanted=port, fitted=6, change=f"mean {_told(mean)}, standard deviation {_told(std)}"
    )


def _views(pixels: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    yield "channel-order", "with the channels the other way round (BGR)", pixels[::-1]
    yield "flipped", "with left and right exchanged", pixels[:, :, ::-1]
    yield "flipped-upside-down", "upside down", pixels[:, ::-1]
    yield "swapped-height-width", "with height and width exchanged", pixels.swapaxes(1, 2)


def solved(pixels: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(means, standard deviations) of (pixels - mean) / std = image, all (3, H, W); None if it is no such image."""
    if image.shape != pixels.shape:
        return None
    factors, constants = [], []
    for before, after in zip(pixels, image, strict=True):
        low, high = (np.unravel_index(end, before.shape) for end in (before.argmin(), before.argmax()))
        if before[low] == before[high] or after[low] == after[high]:
            return None
        factors.append((after[high] - after[low]) / (before[high] - before[low]))
        constants.append(after[low] - factors[-1] * before[low])
    slope, constant = np.array(factors), np.array(constants)
    if not equal(pixels * _column(slope) + _column(constant), image):
        return None
    return -constant / slope, 1 / slope


def _numbers(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> tuple[str, str]:
    (mean, std), (right_mean, right_std) = ours, theirs
    factor = float(np.mean(right_std / std))
    if np.allclose(std * factor, right_std, rtol=SAME, atol=0) and np.allclose(
        mean * factor, right_mean, rtol=SAME, atol=SAME
    ):
        id = "rounded-constant" if abs(factor - 1) < ROUNDED else "value-range"
        return id, f"pixels are {factor:.{DIGITS}g} times the reference's before they are normalised"
    told = []
    if not np.allclose(mean, right_mean, rtol=SAME, atol=SAME):
        told.append(f"mean {_told(mean)} in the port, {_told(right_mean)} in the reference")
    id = "normalisation-mean" if told else "normalisation-std"
    if not np.allclose(std, right_std, rtol=SAME, atol=0):
        told.append(f"standard deviation {_told(std)} in the port, {_told(right_std)} in the reference")
    return id, "; ".join(told)


def _told(numbers: np.ndarray) -> str:
    return f"({', '.join(f'{number + 0.0:.{DIGITS}g}' for number in np.where(abs(numbers) < SAME, 0, numbers))})"


def _column(numbers: np.ndarray) -> np.ndarray:
    return numbers.reshape(3, 1, 1)
