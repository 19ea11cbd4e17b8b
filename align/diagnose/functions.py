"""The functions that networks are made of, in float64 numpy, each with the settings that it may differ in.

Sources: the documentation of `torch.nn.functional`, whose names and defaults these are. A Form is a function with its
settings; two Forms of one `name` differ in settings only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import erf, pi, sqrt

import numpy as np

from align.diagnose.numbers import told

Array = np.ndarray


@dataclass(frozen=True)
class Form:
    """`setting` tells what is chosen ("axis -1"), empty where there is no choice; `id` names the choice."""

    name: str
    apply: Callable[[Array], Array]
    setting: str = ""
    id: str = ""
    number: float | None = None  # the setting, where it is a number that was solved for
    axes: tuple[int, ...] = ()  # along which elements depend on each other; along the others they do not
    kept: bool = True  # whether those axes are still there in the result

    def __str__(self) -> str:
        return f"{self.name}, {self.setting}" if self.setting else self.name


_erf = np.vectorize(erf, otypes=[np.float64])  # numpy has none


def expit(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + _erf(x / sqrt(2)))


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))


def _hardswish(x: Array) -> Array:
    return x * np.clip(x + 3, 0, 6) / 6


def _softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


ACTIVATION = "activation"
ELEMENTWISE = (
    Form("gelu", _gelu, "exact", "approximate-gelu"),
    Form("gelu", _gelu_tanh, "tanh approximation", "approximate-gelu"),
    Form("relu", lambda x: np.maximum(x, 0), id=ACTIVATION),
    Form("silu", lambda x: x * expit(x), id=ACTIVATION),
    Form("quick gelu", lambda x: x * expit(1.702 * x), id=ACTIVATION),
    Form("sigmoid", expit, id=ACTIVATION),
    Form("tanh", np.tanh, id=ACTIVATION),
    Form("hardswish", _hardswish, id=ACTIVATION),
    Form("mish", lambda x: x * np.tanh(_softplus(x)), id=ACTIVATION),
    Form("softplus", _softplus, id=ACTIVATION),
    Form("softsign", lambda x: x / (1 + np.abs(x)), id=ACTIVATION),
    Form("identity", lambda x: x, id=ACTIVATION),
    Form("exp", np.exp, id="function"),
    Form("square", np.square, id="function"),
    Form("sqrt", lambda x: np.sqrt(np.maximum(x, 0)), id="function"),
    Form("abs", np.abs, id="function"),
    Form("log", lambda x: np.log(np.where(x > 0, x, 1)), id="function"),
    Form("sin", np.sin, id="function"),
    Form("cos", np.cos, id="function"),
)
ACTIVATIONS = tuple(form for form in ELEMENTWISE if form.id != "function" and form.name != "identity")


def softmax(x: Array, axis: int) -> Array:
    exponents = np.exp(x - x.max(axis, keepdims=True))
    return exponents / exponents.sum(axis, keepdims=True)


def log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def normalize(x: Array, axis: int) -> Array:
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


ALONG_AN_AXIS: dict[str, Callable[..., Array]] = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "normalize": normalize,
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
}
ENDS = 4  # elements at either end of an axis
REDUCTIONS: dict[str, Callable[..., Array]] = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}


def forms(x: Array, shape: tuple[int, ...]) -> Iterator[Form]:
    """Every form that makes an array of this shape of `x`."""
    if x.shape == shape:
        yield from ELEMENTWISE
        for name, function in ALONG_AN_AXIS.items():
            for axis in range(x.ndim):
                yield Form(name, partial(function, axis=axis), f"axis {axis - x.ndim}", "wrong-axis", None, (axis,))
    yield from _reductions(x, shape)
    yield from _indexed(x, shape)


def _indexed(x: Array, shape: tuple[int, ...]) -> Iterator[Form]:
    """One element along an axis, near either end."""
    for axis, size in enumerate(x.shape):
        if (*x.shape[:axis], *x.shape[axis + 1 :]) == shape:
            for index in sorted({*range(min(size, ENDS)), *range(max(0, size - ENDS), size)}):
                apply = partial(np.take, indices=index, axis=axis)
                yield Form("element", apply, f"{index} of axis {axis - x.ndim}", "wrong-slice", None, (axis,), False)


def solved(x: Array, made: Array) -> Iterator[Form]:
    """Forms with a number in them, solved for from what was made; whether they fit is still to be seen."""
    if x.shape != made.shape:
        return
    below, high = x < 0, float(made.max())
    if below.any():
        slope = float(np.median(made[below] / x[below]))
        yield _numbered("leaky_relu", _leaky, "slope", slope, "negative-slope")
        alpha = float(np.median(made[below] / np.expm1(x[below])))
        yield _numbered("elu", _elu, "alpha", alpha, "alpha")
    if high > 0:
        yield _numbered("clipped relu", _clipped, "limit", high, "limit")
    inside = (made > 0.05) & (made < 0.95) & (np.abs(x) > 2.0**-10)
    if inside.any():
        slope = float(np.median((made[inside] - 0.5) / x[inside]))
        yield _numbered("hardsigmoid", _hardsigmoid, "slope", slope, "slope")


def _numbered(name: str, function: Callable[..., Array], word: str, number: float, id: str) -> Form:
    return Form(name, partial(function, number=number), f"{word} {told(number)}", id, number)


def _leaky(x: Array, number: float) -> Array:
    return np.where(x > 0, x, number * x)


def _elu(x: Array, number: float) -> Array:
    return np.where(x > 0, x, number * np.expm1(np.minimum(x, 0)))


def _clipped(x: Array, number: float) -> Array:
    return np.clip(x, 0, number)


def _hardsigmoid(x: Array, number: float) -> Array:
    return np.clip(x * number + 0.5, 0, 1)


def _reductions(x: Array, shape: tuple[int, ...]) -> Iterator[Form]:
    for count in range(1, x.ndim + 1):
        for axes in combinations(range(x.ndim), count):
            for keep in (False, True):
                made = tuple(1 if k in axes else n for k, n in enumerate(x.shape) if keep or k not in axes)
                if made != shape or (keep and made == x.shape):
                    continue
                where = f"axis {', '.join(str(axis - x.ndim) for axis in axes)}"
                for name, function in REDUCTIONS.items():
                    apply = partial(function, axis=axes, keepdims=keep)
                    yield Form(name, apply, where, "wrong-axis", None, axes, keep)


@dataclass(frozen=True)
class Pairing:
    """A function of two operands."""

    name: str
    apply: Callable[[Array, Array], Array]
    id: str = "function"

    def __str__(self) -> str:
        return self.name


def _transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2) if x.ndim > 1 else x


def _concat(a: Array, b: Array, axis: int) -> Array:
    return np.concatenate((a, b), axis)


PAIRINGS = (
    Pairing("a + b", np.add),
    Pairing("a - b", np.subtract),
    Pairing("a * b", np.multiply),
    Pairing("a / b", np.divide),
    Pairing("maximum", np.maximum),
    Pairing("minimum", np.minimum),
    Pairing("a @ b", np.matmul),
    Pairing("a @ b transposed", lambda a, b: a @ _transposed(b)),
    Pairing("a transposed @ b", lambda a, b: _transposed(a) @ b),
    Pairing("a transposed @ b transposed", lambda a, b: _transposed(a) @ _transposed(b)),
    *(Pairing(f"concat, axis {axis}", partial(_concat, axis=axis)) for axis in range(-4, 0)),
)


def paired(a: Array, b: Array, shape: tuple[int, ...]) -> Iterator[tuple[Pairing, Array]]:
    """What each pairing that yields this shape makes of two operands."""
    for pairing in PAIRINGS:
        if "@" in pairing.name and (a.ndim < 2 or b.ndim < 2):
            continue
        try:
            with np.errstate(all="ignore"):
                made = pairing.apply(a, b)
        except ValueError:
            continue
        if made.shape == shape:
            yield pairing, made
