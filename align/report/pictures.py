"""Images of `data` that differ, as PNG data URIs: what the reference made, what the port made, and the difference."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from align.steps import chain

Row = Mapping[str, Any]
Pair = tuple[np.ndarray | None, np.ndarray | None]

SHOWN = 6  # images, of each the first stage that differs
PIXELS = 160  # along the longer side
CHANNELS = (1, 3)


def pictures(rows: Sequence[Row], pair: Callable[[str, str], Pair]) -> list[dict[str, Any]]:
    """Of the first red image of each chain of stages: position in `rows`, three PNG data URIs, the greatest difference.

    `pair(step, name)` gives the reference's array and the port's. `difference` is None where the shapes are unlike.
    """
    found: list[dict[str, Any]] = []
    seen: set[str | None] = set()
    for index, row in enumerate(rows):
        stages = chain(row["step"], row["name"])
        if row["step"] != "data" or row["verdict"] != "misaligned" or stages in seen or len(found) == SHOWN:
            continue
        reference, port = pair(row["step"], row["name"])
        if reference is None or port is None or not (_is_image(reference) and _is_image(port)):
            continue
        seen.add(stages)
        found.append({"row": index, **_compared(reference, port)})
    return found


def _is_image(array: np.ndarray) -> bool:
    """(H, W, C), (C, H, W) or a batch of the latter, of numbers that a picture can be made of."""
    if array.dtype.kind not in "uif" or array.ndim not in (3, 4) or not array.size:
        return False
    return array.shape[-3] in CHANNELS or (array.ndim == 3 and array.shape[-1] in CHANNELS)


def _compared(reference: np.ndarray, port: np.ndarray) -> dict[str, Any]:
    if reference.ndim == 4 and reference.shape == port.shape:  # of a batch, the image that differs most
        apart = np.abs(_wide(reference) - _wide(port)).reshape(len(reference), -1).max(axis=1)
        reference, port = reference[int(apart.argmax())], port[int(apart.argmax())]
    theirs, ours = _channels_last(reference), _channels_last(port)
    low, high = (0.0, 255.0) if reference.dtype == np.uint8 else (float(theirs.min()), float(theirs.max()))
    told = {"reference": _png(theirs, low, high), "port": _png(ours, low, high)}
    if theirs.shape != ours.shape:
        return told | {"difference": None, "greatest": None}
    apart = np.abs(theirs - ours)
    shown = np.sqrt(apart)  # or a few edges would leave the rest black
    return told | {"difference": _png(shown, 0.0, float(shown.max())), "greatest": float(apart.max())}


def _wide(array: np.ndarray) -> np.ndarray:
    return np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)


def _channels_last(array: np.ndarray) -> np.ndarray:
    """(H, W, C) in float64, C 1 or 3."""
    array = _wide(array[0] if array.ndim == 4 else array)
    return array if array.shape[-1] in CHANNELS else np.moveaxis(array, 0, -1)


def _png(array: np.ndarray, low: float, high: float) -> str:
    """An (H, W, C) array, `low` black and `high` white, at most PIXELS along its longer side."""
    scaled = (np.clip((array - low) / ((high - low) or 1.0), 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(scaled[..., 0] if scaled.shape[-1] == 1 else scaled)
    image.thumbnail((PIXELS, PIXELS), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
