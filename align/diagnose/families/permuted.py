"""The same elements in another order: axes, heads, channels, height and width, query, key and value."""

import re
from collections.abc import Iterator

import numpy as np

from align.diagnose.arrays import equal
from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence
from align.diagnose.order import Loops, along_axes, described, nested

RANK = 30
QKV = re.compile(r"\bqkv\b|\bq\b.*\bk\b.*\bv\b|\bk\b.*\bq\b|\bquery\b.*\bkey\b")
HEADS = ("num_heads", "heads", "n_head", "nhead", "n_heads")


def propose(evidence: Evidence) -> Iterator[Hypothesis]:
    port, reference = evidence.port, evidence.reference
    if port is None or reference is None or port.size != reference.size or port.dtype.kind != "f":
        return
    yield from _along(evidence, port, reference, 1)
    loops = nested(port, reference)
    if loops is not None:
        made = np.empty(port.size)
        made[loops.indices()] = port.reshape(-1)
        yield Hypothesis(
            _of_loops(evidence, port, reference, loops),
            f"the port's elements are the reference's in another order: {_told(loops, reference)}",
            made=made.reshape(reference.shape),
            wanted=reference,
            fitted=2 * len(loops.sizes),
        )
    else:
        yield from _along(evidence, port, reference, 2)


def _along(evidence: Evidence, port: np.ndarray, reference: np.ndarray, count: int) -> Iterator[Hypothesis]:
    for axes, order in along_axes(port, reference, count):
        rest = (size for axis, size in enumerate(port.shape) if axis not in axes)
        flat = np.moveaxis(port, axes, range(count)).reshape(order.size, *rest)
        whole = flat[np.argsort(order)].reshape(*(port.shape[axis] for axis in axes), *flat.shape[1:])
        seen = f"axis {axes[0]}" if count == 1 else f"axes {axes} as one"
        yield Hypothesis(
            _of_axes(evidence, port, axes),
            f"along {seen} of {port.shape} the port's values are the reference's {described(order)}",
            made=np.moveaxis(whole, range(count), axes),
            wanted=reference,
            fitted=order.size,
        )


def _of_axes(evidence: Evidence, array: np.ndarray, axes: tuple[int, ...]) -> str:
    sizes = [array.shape[axis] for axis in axes]
    if QKV.search(getattr(evidence, "code", "")) and any(size % 3 == 0 for size in sizes):
        return "qkv-order"
    if array.ndim > 3 and any(size in _heads(evidence) for size in sizes):
        return "permuted-heads"
    if len(axes) > 1:
        return "permuted"
    (axis,) = axes
    if array.ndim == 4:
        return ("permuted-batch", "permuted-channels", "permuted-rows", "permuted-columns")[axis]
    if array.ndim == 3:
        return ("permuted-batch", "permuted-tokens", "permuted-channels")[axis]
    return "permuted"


def _of_loops(evidence: Evidence, port: np.ndarray, reference: np.ndarray, loops: Loops) -> str:
    digits = loops.digits
    if digits is None:
        return "reversed-order"
    sizes, _ = digits
    code = getattr(evidence, "code", "")
    if QKV.search(code) and 3 in (*sizes, *reference.shape):
        return "qkv-order"
    if any(size in _heads(evidence) for size in sizes) and not _is_transposed(port, reference):
        return "permuted-heads"
    if reference.ndim == 4 and port.size == reference.size and _swaps_last_two(port, reference):
        return "swapped-height-width"
    return "transposed"


def _heads(evidence: Evidence) -> set[int]:
    return {int(value) for name, value in evidence.numbers.items() if name.rpartition(" ")[2] in HEADS}


def _is_transposed(port: np.ndarray, reference: np.ndarray) -> bool:
    return sorted(port.shape) == sorted(reference.shape) and port.shape != reference.shape


def _swaps_last_two(port: np.ndarray, reference: np.ndarray) -> bool:
    """Height and width, unless they are equal: then the axes may be anything, queries and keys for instance."""
    height, width = reference.shape[-2:]
    ways = ((port, reference), (reference, port))
    swapped = (equal(one.reshape(-1), np.swapaxes(other, -1, -2).reshape(-1)) for one, other in ways)
    return height != width and any(swapped)


def _told(loops: Loops, reference: np.ndarray) -> str:
    digits = loops.digits
    if digits is None:
        return f"read by the strides {loops.strides} from {loops.start}"
    sizes, order = digits
    return f"of {reference.shape}, seen as {sizes}, the axes are read in the order {order}"
