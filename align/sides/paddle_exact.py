"""Paddle's kernels that compute in float32 what goes with float64 tensors, as they would be in float64.

A twin asks what a port means, and a kernel's rounding is no meaning: the gradient of average pooling multiplies by a
float32 of 1 / n, `pow` takes its exponent in float32, interpolation its positions and weights. In float64 runs these
kernels are therefore completed or replaced here, whoever calls them, from the attributes that they are called with.
So are those that hold a number from Python in float32: the scale of `selu`, the slope of `hardsigmoid`.
What stands in for a kernel must agree with it to float32; where it does not, the kernel's own answer is taken, so that
nothing a port does otherwise can be hidden, but only what float32 could not have shown either.

A constant that is written with too few digits is another matter (0.1666667 where 1 / 6 is meant): that stays as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from paddle import _C_ops

# Relative to the scale: as float32 rounds, with room for a sum of a few terms whose positions are off by as much.
NEAR = 2.0**-16

_assign, _multiply, _matmul = _C_ops.assign, _C_ops.multiply, _C_ops.matmul
_elementwise_pow, _transpose = _C_ops.elementwise_pow, _C_ops.transpose
_where, _exp, _clip = _C_ops.where, _C_ops.exp, _C_ops.clip
_add, _subtract = _C_ops.add, _C_ops.subtract


@contextmanager
def exact() -> Iterator[None]:
    """In this block the kernels above are exact for float64 tensors; all others are as they are."""
    places = [(_C_ops, name, replacement) for name, replacement in REPLACED.items() if hasattr(_C_ops, name)]
    places += [(paddle.Tensor, "__pow__", _pow)]  # the operator reaches no kernel by name
    held = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    held += [(_C_ops, "one_hot", _C_ops.one_hot)]
    try:
        for owner, name, replacement in places:
            setattr(owner, name, _exactly(getattr(owner, name), replacement))
        _C_ops.one_hot = _widened(_C_ops.one_hot)
        yield
    finally:
        for owner, name, kernel in held:
            setattr(owner, name, kernel)


def _exactly(kernel: Callable[..., Any], replacement: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        made = kernel(*args, **kwargs)
        if not args or kwargs or not isinstance(args[0], paddle.Tensor) or args[0].dtype != paddle.float64:
            return made
        better = replacement(made, *args)
        return made if better is None or not _agree(made, better) else better

    call.__name__ = kernel.__name__
    return call


def _widened(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`one_hot` gives float32 whatever is asked for: what labels are then smoothed in would be float32 too."""

    def one_hot(*args: Any, **kwargs: Any) -> Any:
        return kernel(*args, **kwargs).astype("float64")

    return one_hot


def _agree(made: paddle.Tensor, better: paddle.Tensor) -> bool:
    if made.shape != better.shape:
        return False
    with np.errstate(all="ignore"):
        first, second = made.numpy(), better.numpy()
        scale = np.max(np.abs(first), initial=0.0)
        return bool(np.max(np.abs(first - second), initial=0.0) <= NEAR * scale)


def _constant(array: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(array, dtype="float64")


def _pool(made: paddle.Tensor, x: paddle.Tensor, *attributes: Any) -> paddle.Tensor | None:
    """Forward is exact; the gradient that goes on is put right by what float32 has made of 1 / n, place by place."""
    kernel, strides, paddings, _, exclusive, layout, kind, over_all, adaptive, algorithm = attributes[:10]
    if kind != "avg" or x.stop_gradient or algorithm not in ("EXPLICIT", "VALID"):
        return None
    axes = range(2, x.ndim) if layout.startswith("NC") else range(1, x.ndim - 1)
    sizes = [(int(x.shape[axis]), int(made.shape[axis])) for axis in axes]
    if over_all:
        counts = [np.full(after, before) for before, after in sizes]
    elif adaptive:
        counts = [_adaptive(before, after) for before, after in sizes]
    elif exclusive:
        starts = _starts(paddings if algorithm == "EXPLICIT" else [0], len(sizes))
        numbers = zip(sizes, _numbers(kernel, len(sizes)), _numbers(strides, len(sizes)), starts, strict=True)
        counts = [_covered(before, after, size, stride, pad) for (before, after), size, stride, pad in numbers]
    else:
        counts = [np.full(after, size) for (_, after), size in zip(sizes, _numbers(kernel, len(sizes)), strict=True)]
    n = np.ones(made.ndim * [1])
    for axis, count in zip(axes, counts, strict=True):
        n = n * count.reshape([-1 if other == axis else 1 for other in range(made.ndim)])
    correction = (1 / n) / np.float32(1 / n).astype(np.float64)
    if (correction == 1).all():
        return None
    factor = _constant(np.broadcast_to(correction, made.shape))
    made.register_hook(lambda gradient: _multiply(gradient, factor))
    return _assign(made)  # whoever watches the result sees the gradient that has come, not the one that goes on


def _numbers(value: Any, count: int) -> list[int]:
    values = [int(item) for item in (value if isinstance(value, (list, tuple)) else value.tolist())]
    return values * count if len(values) == 1 else values


def _starts(paddings: Sequence[int], count: int) -> list[int]:
    values = _numbers(paddings, count)
    return values[::2] if len(values) == 2 * count else values


def _adaptive(before: int, after: int) -> np.ndarray:
    places = np.arange(after)
    return -(-(places + 1) * before // after) - places * before // after


def _covered(before: int, after: int, size: int, stride: int, pad: int) -> np.ndarray:
    starts = np.arange(after) * stride - pad
    return np.minimum(starts + size, before) - np.maximum(starts, 0)


def _pow(made: paddle.Tensor, x: paddle.Tensor, exponent: Any) -> paddle.Tensor | None:
    if not isinstance(exponent, float) or float(np.float32(exponent)) == exponent:
        return None
    return _elementwise_pow(x, _full(x, exponent))


def _lp_pool(made: paddle.Tensor, x: paddle.Tensor, *attributes: Any) -> paddle.Tensor | None:
    """(sum of x ^ p) ^ (1 / p), as an average whose gradient is exact times the number of places."""
    kernel, power = _numbers(attributes[0], 2), attributes[-1]
    if len(attributes) != 11 or power <= 0:
        return None
    strides, paddings, ceil, _, layout, _, over_all, adaptive, algorithm = attributes[1:-1]
    raised = _elementwise_pow(x, _full(x, float(power)))
    average = _C_ops.pool2d(  # by name: the one that `exact` has put in place
        raised, kernel, strides, paddings, ceil, False, layout, "avg", over_all, adaptive, algorithm
    )
    total = _multiply(average, _full(average, float(np.prod(kernel))))
    return _elementwise_pow(total, _full(average, 1 / power))


def _selu(made: paddle.Tensor, x: paddle.Tensor, scale: float, alpha: float) -> paddle.Tensor:
    # No overflow where the other branch counts: a gradient of 0 times infinity would be none.
    low = _clip(x, float("-inf"), 0.0)
    below = _multiply(_subtract(_exp(low), _full(x, 1.0)), _full(x, alpha))
    return _multiply(_where(x > 0, x, below), _full(x, scale))


def _hardsigmoid(made: paddle.Tensor, x: paddle.Tensor, slope: float, offset: float) -> paddle.Tensor | None:
    line = _add(_multiply(x, _full(x, slope)), _full(x, offset))
    inside = (made > 0).logical_and(made < 1)
    return _where(inside, line, made.detach())


def _label_smooth(made: paddle.Tensor, label: paddle.Tensor, prior: Any, epsilon: float) -> paddle.Tensor | None:
    if prior is not None:
        return None
    kept = _multiply(label, _full(label, 1 - epsilon))
    return _add(kept, _full(label, epsilon / int(label.shape[-1])))


def _rrelu(made: paddle.Tensor, x: paddle.Tensor, lower: float, upper: float, is_test: bool) -> paddle.Tensor | None:
    return _where(x >= 0, x, _multiply(x, _full(x, (lower + upper) / 2))) if is_test else None


def _full(x: paddle.Tensor, value: float) -> paddle.Tensor:
    return _constant(np.full(x.shape, value))


def _interpolate(made: paddle.Tensor, x: paddle.Tensor, *attributes: Any) -> paddle.Tensor | None:
    layout, _, _, _, scale, method, corners, mode = attributes[3:11]
    if method not in ("linear", "bilinear", "trilinear", "bicubic") or not layout.startswith("NC"):
        return None
    scales = list(scale) if isinstance(scale, (list, tuple)) else []
    for number, axis in enumerate(range(2, x.ndim)):
        given = scales[number] if len(scales) == x.ndim - 2 else 0
        weights = _weights(int(x.shape[axis]), int(made.shape[axis]), given, method == "bicubic", corners, mode)
        x = _along(x, axis, weights)
    return x


def _along(x: paddle.Tensor, axis: int, weights: np.ndarray) -> paddle.Tensor:
    """The sum over an axis with weights (after, before)."""
    order = [other for other in range(x.ndim) if other != axis] + [axis]
    back = [order.index(place) for place in range(x.ndim)]
    return _transpose(_matmul(_transpose(x, order), _constant(weights), False, True), back)


def _weights(before: int, after: int, scale: float, cubic: bool, corners: bool, mode: int) -> np.ndarray:
    """How much each of `before` places has in each of `after`, (after, before); attributes as Paddle's kernels do."""
    places = np.arange(after)
    if corners:
        positions = places * ((before - 1) / (after - 1) if after > 1 else 0.0)
    else:
        ratio = 1 / scale if scale > 0 else before / after
        positions = ratio * (places + 0.5) - 0.5 if cubic or mode == 0 else ratio * places
        positions = positions if cubic else np.maximum(positions, 0)
    low = np.floor(positions).astype(int)
    part = positions - low
    found = np.zeros((after, before))
    taps = _cubic(part) if cubic else {0: 1 - part, 1: part}
    for offset, weight in taps.items():
        np.add.at(found, (places, np.clip(low + offset, 0, before - 1)), weight)
    return found


def _cubic(part: np.ndarray, a: float = -0.75) -> dict[int, np.ndarray]:
    """Keys' cubic convolution ("Cubic Convolution Interpolation", 1981) with the kernels' a, by tap."""

    def near(x: np.ndarray) -> np.ndarray:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: np.ndarray) -> np.ndarray:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return {-1: far(part + 1), 0: near(part), 1: near(1 - part), 2: far(2 - part)}


REPLACED: dict[str, Callable[..., Any]] = {
    "pool2d": _pool,
    "pool3d": _pool,
    "pow": _pow,
    "lp_pool2d": _lp_pool,
    "selu": _selu,
    "hardsigmoid": _hardsigmoid,
    "rrelu": _rrelu,
    "label_smooth": _label_smooth,
    **{f"{kind}_interp": _interpolate for kind in ("linear", "bilinear", "trilinear", "bicubic")},
}
