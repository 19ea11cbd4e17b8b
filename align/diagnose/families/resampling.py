"""Images resized another way: another filter, without antialias, to another size; and cut out at another place.

A stage is made again from the reference's stage before it. Filters are Pillow's own; what has no antialias (OpenCV,
tensor functions) is the same kernels without their widening, half-pixel centres: R. Keys, "Cubic convolution
interpolation", 1981, with a of -0.5 (Pillow) or -0.75 (OpenCV).
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.rows import Recorded, RowEvidence

RANK = 3
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
TIE = 2.0**-8  # of one step of a byte: float32 kernels of sums up to 255 are nearer than that to float64's
BOX = "box"  # the row that says which part of the photograph a training stage takes: top, left, height, width


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    if not isinstance(evidence, RowEvidence) or evidence.step != "data":
        return
    port, reference = (side.get(evidence.name) for side in (evidence.rows.port, evidence.rows.reference))
    if port is None or reference is None or not is_image(port) or not is_image(reference):
        return
    for _, source in sources(evidence.rows, evidence.name):
        if is_image(source):
            yield from _cut(port, reference, source)
            yield from _resized(port, reference, source)


def is_image(array: np.ndarray) -> bool:
    """Bytes of (height, width, 3)."""
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size > 0


def sources(rows: Recorded, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of what a stage of an image may have been made from: the reference's stages before it."""
    chain = name.rpartition("/")[0]
    names = list(rows.reference)
    earlier = [other for other in names[: names.index(name)] if other.rpartition("/")[0] == chain]
    box = rows.reference.get(f"{chain}/{BOX}")
    for other in reversed(earlier):
        if rows.reference[other].ndim == 3:
            yield other, rows.reference[other]
            return
    decoded = rows.reference.get(f"{chain.partition('/')[0]}/decoded")
    if decoded is not None and box is not None and box.shape == (4,):
        top, left, height, width = (int(value) for value in box)
        yield f"{chain}/{BOX}", decoded[top : top + height, left : left + width]


def _cut(port: np.ndarray, reference: np.ndarray, source: np.ndarray) -> Iterator[Hypothesis]:
    ours, theirs = _place(source, port), _place(source, reference)
    same = port.shape == reference.shape
    if ours is None or theirs is None or (same and ours == theirs):
        return
    moved = (ours[0] - theirs[0], ours[1] - theirs[1])
    rest = [source.shape[axis] - port.shape[axis] for axis in (0, 1)]
    rules = {"rounded down": [n // 2 for n in rest], "rounded": [round(n / 2) for n in rest]}
    rules |= {"rounded up": [-(-n // 2) for n in rest], "half of each size": _halves(source, port)}
    told = [name for name, place in rules.items() if tuple(place) == ours]
    half = f"; half of the rest {tuple(rest)} {told[0]} is the port's" if told and same else ""
    yield Hypothesis(
        "crop-offset" if same else "crop-size",
        f"cut out {port.shape[:2]} at {ours} in the port, {reference.shape[:2]} at {theirs} in the reference "
        f"(top, left): {moved[0]:+d} and {moved[1]:+d} pixels{half}",
        made=_window(source, ours, port).astype(np.float64),
        wanted=port.astype(np.float64),
        fitted=2,
        change=f"cut at {theirs}" if same else f"cut {reference.shape[:2]}",
    )


def _halves(source: np.ndarray, port: np.ndarray) -> list[int]:
    return [source.shape[axis] // 2 - port.shape[axis] // 2 for axis in (0, 1)]


def _window(source: np.ndarray, place: tuple[int, int], like: np.ndarray) -> np.ndarray:
    top, left = place
    return source[top : top + like.shape[0], left : left + like.shape[1]]


def _place(source: np.ndarray, part: np.ndarray) -> tuple[int, int] | None:
    """Where an image is cut out of another (top, left); None if it is not, or at more places than one."""
    rows, columns = (source.shape[axis] - part.shape[axis] + 1 for axis in (0, 1))
    if rows < 1 or columns < 1 or rows * columns == 1:
        return None
    open_ = np.ones((rows, columns), bool)
    for y, x in ((0, 0), (-1, -1), (part.shape[0] // 2, part.shape[1] // 2), (0, -1), (-1, 0)):
        y, x = y % part.shape[0], x % part.shape[1]
        open_ &= (source[y : y + rows, x : x + columns] == part[y, x]).all(axis=2)
    found = [(int(y), int(x)) for y, x in np.argwhere(open_)[:64]]
    found = [place for place in found if np.array_equal(_window(source, place, part), part)]
    return found[0] if len(found) == 1 else None


def _resized(port: np.ndarray, reference: np.ndarray, source: np.ndarray) -> Iterator[Hypothesis]:
    theirs = _filter(reference, source)
    if theirs is None or port.shape == source.shape:
        return
    if port.shape != reference.shape:
        ratio, kept = (array.shape[1] / array.shape[0] for array in (port, source))
        squashed = abs(ratio / kept - 1) > 2 / min(port.shape[:2])  # more than a pixel to either side
        for name in FILTERS:
            yield Hypothesis(
                "aspect-ratio" if squashed else "resized-size",
                f"{source.shape[:2]} is resized to {port.shape[:2]} in the port, {reference.shape[:2]} in the "
                f"reference" + (": its aspect ratio is not kept" if squashed else "") + _other(name, theirs),
                made=resized(source, port.shape, name).astype(np.float64),
                wanted=port.astype(np.float64),
                change=f"resize to {reference.shape[:2]}",
            )
        return
    for name in FILTERS:
        if name != theirs:
            yield Hypothesis(
                "interpolation",
                f"{source.shape[:2]} is resized to {port.shape[:2]} by {name} in the port, {theirs} in the reference",
                made=resized(source, port.shape, name).astype(np.float64),
                wanted=port.astype(np.float64),
                change=theirs,
            )
    for name, kernel in KERNELS.items():
        exact = _without_antialias(source, port.shape, kernel)
        for how, made in (("rounded", _snapped(exact, port)), ("cut to bytes", _snapped(exact - 0.5, port))):
            yield Hypothesis(
                "antialias",
                f"{source.shape[:2]} is resized to {port.shape[:2]} by {name} without antialias and {how} in the port, "
                f"by {theirs} with antialias in the reference",
                made=made,
                wanted=port.astype(np.float64),
                change=f"{theirs} with antialias",
            )


def _other(name: str, theirs: str) -> str:
    return "" if name == theirs else f", by {name} instead of {theirs}"


def resized(source: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """An image (H, W, 3) of bytes in another size, by one of Pillow's filters."""
    return np.asarray(Image.fromarray(source).resize((shape[1], shape[0]), Image.Resampling[name.upper()]))


def _filter(image: np.ndarray, source: np.ndarray) -> str | None:
    return next((name for name in FILTERS if np.array_equal(resized(source, image.shape, name), image)), None)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - np.abs(distance), 0, None)


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    def kernel(distance: np.ndarray) -> np.ndarray:
        x = np.abs(distance)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    return kernel


KERNELS = {"bilinear": _linear, "bicubic (a=-0.75)": _cubic(-0.75), "bicubic (a=-0.5)": _cubic(-0.5)}


def _without_antialias(
    source: np.ndarray, shape: tuple[int, ...], kernel: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(H, W, 3) float64, not rounded; the border's pixels go on outside."""
    value = source.astype(np.float64)
    for axis in (0, 1):
        centres = (np.arange(shape[axis]) + 0.5) * source.shape[axis] / shape[axis] - 0.5
        first = np.floor(centres).astype(int)
        made = np.zeros([shape[k] if k == axis else value.shape[k] for k in range(3)])
        for tap in range(-1, 3):
            weights = kernel(centres - (first + tap)).reshape([-1 if k == axis else 1 for k in range(3)])
            made += weights * np.take(value, np.clip(first + tap, 0, source.shape[axis] - 1), axis)
        value = made
    return value


def _snapped(exact: np.ndarray, port: np.ndarray) -> np.ndarray:
    """Rounded to bytes; what is so near to a tie that float32 may go either way is as the port has it."""
    exact = np.clip(exact, 0, 255)
    near = np.abs(exact - port) <= 0.5 + TIE
    return np.where(near, port, np.rint(exact)).astype(np.float64)
