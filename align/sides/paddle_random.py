"""PaddlePaddle's random functions, answered by a tape.

Paddle has no dispatch mode: the kernels of `paddle._C_ops` that draw are replaced while the block runs, and
`bernoulli_`, whose comparison is not the tape's. A kernel that draws and has no answer here moves the state of Paddle's
generator; that is looked at after each kernel whose name sounds like drawing, after each module, and at the end.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, _C_ops, _legacy_C_ops

from align.errors import UsageError
from align.record.calls import Calls
from align.record.randomness import Tape
from align.record.tracer import Hooked

_SUSPECTS = re.compile(
    "rand|uniform|gauss|bernoulli|dropout|poisson|gamma|dirichlet|binomial|multinomial|exponential|normal_?$|gumbel|rrelu"
    "|sampl|attn|attention|shuffle_batch|lstm|rnn"
)


@contextmanager
def drawing(tape: Tape, model: Any, hooked: Hooked) -> Iterator[None]:
    """`PaddleSide.drawing`. Everything is put back on leaving, whatever happens."""
    calls, guard = Calls(), _Guard(tape)
    with ExitStack() as stack:
        stack.callback(setattr, tape, "running", tape.running)
        stack.callback(paddle.set_rng_state, paddle.get_rng_state())
        for owner, name, replacement in _replacements(tape, guard):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        stack.callback(setattr, tape, "given", tape.given)
        if model is not None:
            tape.running = lambda: calls.innermost
            tape.given = lambda: (_array(value) for value in calls.given if isinstance(value, Tensor))
            stack.enter_context(hooked(model, *_hooks(calls, guard)))
        yield
        guard.check("something")


def _hooks(calls: Calls, guard: "_Guard") -> tuple[Callable[[str, Any], None], Callable[[str, Any], None]]:
    def after(module: str, outputs: Any) -> None:
        guard.check("something")
        calls.end(module, outputs)

    return calls.begin, after


class _Guard:
    """Knows whether Paddle's own generators have been asked since the last look."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._seen = _states()

    def check(self, what: str) -> None:
        now = _states()
        if now == self._seen:
            return
        running = self._tape.running()
        where = f" in {running}" if running else ""
        raise UsageError(
            f"paddle: {what} draws random numbers{where}, and no answer of the tape is known for it; "
            "write the model with rand, randn, bernoulli or dropout, or set its rate to 0"
        )

    def watched(self, name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = kernel(*args, **kwargs)
            self.check(name)
            return result

        return call


def _states() -> list[list[str]]:
    """Seed, offset and engine of each generator; the fourth word is an address."""
    words = [str(state).split() for state in paddle.get_rng_state()]
    return [[*state[:3], *state[4:]] for state in words]


def _replacements(tape: Tape, guard: _Guard) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """(owner, attribute, what it shall be meanwhile)."""
    for module in (_C_ops, _legacy_C_ops):
        for name, kernel in list(vars(module).items()):
            answer = _ANSWERS.get(name) if module is _C_ops else None
            if answer:
                yield module, name, partial(answer, tape, kernel)
            elif callable(kernel) and _SUSPECTS.search(name) and not name.endswith(("_grad", "_grad_")):
                yield module, name, guard.watched(name, kernel)
    filled = partial(_bernoulli_in_place, tape)
    yield Tensor, "bernoulli_", lambda x, p=0.5, name=None: filled(x, p)
    for module in (paddle, paddle.tensor, paddle.tensor.random):
        if hasattr(module, "bernoulli_"):
            yield module, "bernoulli_", lambda x, p=0.5, name=None: filled(x, p)


def _shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, Tensor):
        return tuple(shape.numpy().tolist())
    return tuple(int(size) for size in shape)


def _array(value: Any) -> Any:
    return value.detach().astype("float64").numpy() if isinstance(value, Tensor) else value


def _make(values: np.ndarray, dtype: Any, place: Any = None, out: Any = None) -> Tensor:
    made = paddle.to_tensor(values, dtype=dtype, place=place)
    if out is None:
        return made
    paddle.assign(made, output=out)
    return out


def _write(target: Tensor, values: np.ndarray) -> Tensor:
    """Into its memory, and into the graph: no gradient passes what was overwritten."""
    return target.zero_().add_(paddle.to_tensor(values, dtype=target.dtype, place=target.place))


def _dropout(
    tape: Tape, kernel: Callable[..., Any], x: Tensor, seed_tensor: Any, p: Any, is_test: bool, mode: str, *rest: Any
) -> Tensor:
    p = float(p)
    if is_test or p == 0:
        return kernel(x, seed_tensor, p, is_test, mode, *rest)
    return x * _dropout_mask(tape, x, p, mode)


def _dropout_in_place(
    tape: Tape, kernel: Callable[..., Any], x: Tensor, seed_tensor: Any, p: Any, is_test: bool, mode: str, *rest: Any
) -> Tensor:
    p = float(p)
    if is_test or p == 0:
        return kernel(x, seed_tensor, p, is_test, mode, *rest)
    return x.multiply_(_dropout_mask(tape, x, p, mode))


def _fused_dropout_add(
    tape: Tape,
    kernel: Callable[..., Any],
    x: Tensor,
    y: Tensor,
    seed_tensor: Any,
    p: Any,
    is_test: bool,
    mode: str,
    *rest: Any,
) -> tuple[Tensor, None]:
    p = float(p)
    if is_test or p == 0:
        return kernel(x, y, seed_tensor, p, is_test, mode, *rest)
    return x * _dropout_mask(tape, x, p, mode) + y, None


def _dropout_mask(tape: Tape, x: Tensor, p: float, mode: str) -> Tensor:
    """What is multiplied by: with `upscale_in_train` survivors are divided by the probability of survival."""
    keep = 1 - p
    scale = 1 / keep if mode == "upscale_in_train" and keep > 0 else 1.0
    return _make(tape.bernoulli(keep, tuple(x.shape), partial(_array, x)) * scale, x.dtype, x.place)


def _rrelu(tape: Tape, kernel: Callable[..., Any], x: Tensor, lower: Any, upper: Any, is_test: bool) -> Tensor:
    if is_test:
        return kernel(x, lower, upper, is_test)
    slopes = np.where(_array(x) > 0, 1.0, tape.uniform(tuple(x.shape), float(lower), float(upper)))
    return x * _make(slopes, x.dtype, x.place)


def _bernoulli(tape: Tape, kernel: Callable[..., Any], x: Tensor) -> Tensor:
    return _make(tape.bernoulli(_array(x), tuple(x.shape)), x.dtype, x.place)


def _bernoulli_in_place(tape: Tape, x: Tensor, p: Any) -> Tensor:
    return _write(x, tape.bernoulli(_array(p), tuple(x.shape)))


def _uniform(
    tape: Tape,
    kernel: Callable[..., Any],
    shape: Any,
    dtype: Any,
    low: Any,
    high: Any,
    seed: int,
    place: Any,
    out: Any = None,
) -> Tensor:
    return _make(tape.uniform(_shape(shape), float(low), float(high)), dtype, place, out)


def _uniform_in_place(tape: Tape, kernel: Callable[..., Any], x: Tensor, low: Any, high: Any, *_: Any) -> Tensor:
    return _write(x, tape.uniform(tuple(x.shape), float(low), float(high)))


def _gaussian(
    tape: Tape,
    kernel: Callable[..., Any],
    shape: Any,
    mean: float,
    std: float,
    seed: int,
    dtype: Any,
    place: Any,
    out: Any = None,
) -> Tensor:
    return _make(tape.normal(_shape(shape), mean, std), dtype, place, out)


def _gaussian_in_place(tape: Tape, kernel: Callable[..., Any], x: Tensor, mean: float, std: float, *_: Any) -> Tensor:
    return _write(x, tape.normal(tuple(x.shape), mean, std))


def _randint(
    tape: Tape, kernel: Callable[..., Any], low: int, high: int, shape: Any, dtype: Any, place: Any = None
) -> Tensor:
    return _make(tape.integers(int(low), int(high), _shape(shape)), dtype, place)


def _random_in_place(tape: Tape, kernel: Callable[..., Any], x: Tensor, low: int, high: int) -> Tensor:
    return _write(x, tape.integers(low, high, tuple(x.shape)))


def _randperm(
    tape: Tape, kernel: Callable[..., Any], n: Any, dtype: Any = "int64", place: Any = None, out: Any = None
) -> Tensor:
    return _make(tape.permutation(int(n)), dtype, place, out)


def _exponential_in_place(tape: Tape, kernel: Callable[..., Any], x: Tensor, rate: float) -> Tensor:
    return _write(x, -np.log1p(-tape.uniform(tuple(x.shape))) / rate)


def _multinomial(
    tape: Tape, kernel: Callable[..., Any], x: Tensor, count: Any = 1, replacement: bool = False, out: Any = None
) -> Tensor:
    return _make(tape.choice(_array(x), int(count), replacement), "int64", x.place, out)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "dropout": _dropout,
    "dropout_": _dropout_in_place,
    "fused_dropout_add": _fused_dropout_add,
    "rrelu": _rrelu,
    "bernoulli": _bernoulli,
    "uniform": _uniform,
    "uniform_inplace_": _uniform_in_place,
    "gaussian": _gaussian,
    "gaussian_inplace_": _gaussian_in_place,
    "randint": _randint,
    "random_": _random_in_place,
    "randperm": _randperm,
    "exponential_": _exponential_in_place,
    "multinomial": _multinomial,
}
