"""PyTorch's random functions, answered by a tape.

A dispatch mode sees the kernels that all of them come down to (dropout is `bernoulli_` and a product, `trunc_normal_`
is `uniform_` and arithmetic). PyTorch tags each kernel that draws as `nondeterministic_seeded`: one without an answer
here is an error, and none is overlooked.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from align.errors import UsageError
from align.record.calls import Calls
from align.record.randomness import Tape
from align.record.tracer import Hooked

DRAWS = torch.Tag.nondeterministic_seeded
# A dropout makes its mask in the likeness of what it drops from.
LIKE = {torch.ops.aten.empty_like.default, torch.ops.aten.new_empty.default}
_OFF: dict[str, Any] = {"p": 0, "dropout_p": 0, "dropout": 0, "train": False, "training": False}


@contextmanager
def drawing(tape: Tape, model: Any, hooked: Hooked) -> Iterator[None]:
    """`TorchSide.drawing`. The generators are left as they were, and none of them is asked."""
    calls = Calls()
    with ExitStack() as stack:
        stack.callback(setattr, tape, "running", tape.running)
        stack.callback(setattr, tape, "given", tape.given)
        if model is not None:
            tape.running = lambda: calls.innermost
            tape.given = lambda: (_array(value) for value in calls.given if isinstance(value, torch.Tensor))
            stack.enter_context(hooked(model, calls.begin, calls.end))
        # Fused attention draws inside its kernel; this backend is made of products, a softmax and a dropout.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(_Mode(tape))
        yield


class _Mode(TorchDispatchMode):
    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape
        self._like: tuple[Any, Any] = (None, None)  # the last tensor made in another's likeness, and that other

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if DRAWS not in getattr(function, "tags", ()):
            made = function(*args, **kwargs)
            if function in LIKE:
                self._like = made, args[0]
            return made
        given = {argument.name: argument.default_value for argument in function._schema.arguments}
        given |= {**dict(zip(given, args, strict=False)), **kwargs}
        name = function._schema.name.removeprefix("aten::")
        # `out` is written to, and so is `self` where the name says so.
        answer = _ANSWERS.get(name.removesuffix("_"))
        if answer is None and name not in _WHOLE:
            if any(key in given and given[key] == value for key, value in _OFF.items()):
                return function(*args, **kwargs)
            raise UsageError(
                f"torch: {name} draws random numbers{_where(self._tape)}, and no answer of the tape is known for it; "
                "write the model with rand, randn, bernoulli or dropout, or set its rate to 0"
            )
        if name in _WHOLE:
            return _WHOLE[name](self._tape, given)
        assert answer
        if given.get("self") is self._like[0]:
            given["onto"] = self._like[1]
        values = answer(self._tape, given)
        if given.get("out") is not None or name.endswith("_"):
            return _write(given["out"] if given.get("out") is not None else given["self"], values)
        return _make(values, given)


def _where(tape: Tape) -> str:
    running = tape.running()
    return f" in {running}" if running else ""


def _write(target: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    if tuple(target.shape) != values.shape:
        target.resize_(values.shape)
    return target.copy_(torch.from_numpy(np.array(values)))


def _make(values: np.ndarray, given: Mapping[str, Any]) -> torch.Tensor:
    like = next((given[key] for key in ("self", "mean", "std") if isinstance(given.get(key), torch.Tensor)), None)
    dtype, device = given.get("dtype"), given.get("device")
    if not isinstance(dtype, torch.dtype):  # None, or the number that a schema has for int64
        floating = values.dtype.kind in "fb"
        dtype = (torch.get_default_dtype() if like is None else like.dtype) if floating else torch.int64
    if device is None:
        device = torch.get_default_device() if like is None else like.device
    return torch.from_numpy(np.array(values)).to(device=device, dtype=dtype)


def _array(value: Any) -> Any:
    return value.detach().double().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _onto(value: Any) -> Callable[[], np.ndarray] | None:
    return None if value is None else partial(_array, value)


def _shape(given: Mapping[str, Any]) -> tuple[int, ...]:
    if "size" in given:
        return tuple(given["size"])
    return tuple(given["self"].shape)


def _bernoulli(tape: Tape, given: Mapping[str, Any]) -> np.ndarray:
    # bernoulli(probabilities), bernoulli(shape of this, p), and bernoulli_(p): only the first has no p.
    return tape.bernoulli(
        _array(given["p"] if "p" in given else given["self"]), _shape(given), _onto(given.get("onto"))
    )


def _normal(tape: Tape, given: Mapping[str, Any]) -> np.ndarray:
    mean, std = (_array(given[key]) for key in ("mean", "std"))
    if "size" in given or "self" in given:
        return tape.normal(_shape(given), mean, std)
    shape = np.broadcast_shapes(np.shape(mean), np.shape(std))
    return mean + std * tape.normal(shape)


def _randint(tape: Tape, given: Mapping[str, Any]) -> np.ndarray:
    high = given["high"]
    return tape.integers(given.get("low", 0), int(high), _shape(given))


def _random(tape: Tape, given: Mapping[str, Any]) -> np.ndarray:
    """`random_`: without bounds, all that the type holds exactly."""
    dtype = given["self"].dtype
    low, high = given.get("from", 0), given.get("to")
    if high is None:
        floating = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
        high = (1 << floating[dtype]) + 1 if dtype in floating else torch.iinfo(dtype).max
    return tape.integers(low or 0, high, _shape(given))


def _native_dropout(tape: Tape, given: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """(output, mask): the backward of this one multiplies by its mask."""
    value, keep = given["input"], 1 - given["p"]
    if given["train"] is False:
        return value.clone(), torch.ones_like(value, dtype=torch.bool)
    mask = torch.from_numpy(tape.bernoulli(keep, tuple(value.shape), _onto(value))).to(value.device)
    return value * mask * (1 / keep if keep else 0.0), mask


def _rrelu(tape: Tape, given: Mapping[str, Any]) -> torch.Tensor:
    """`noise`, which backward multiplies by, takes the slopes: drawn ones where the value is not positive, else 1."""
    value, noise = given["self"], given["noise"]
    low, high = float(given["lower"]), float(given["upper"])
    if given["training"]:
        noise.copy_(torch.from_numpy(tape.uniform(tuple(value.shape), low, high)))
        noise.masked_fill_(value > 0, 1.0)
        return value * noise
    return torch.where(value >= 0, value, value * ((low + high) / 2))


# Those that answer for a whole kernel, not for the numbers that it draws.
_WHOLE: dict[str, Callable[[Tape, Mapping[str, Any]], Any]] = {
    "native_dropout": _native_dropout,
    "rrelu_with_noise": _rrelu,
}

_ANSWERS: dict[str, Callable[[Tape, Mapping[str, Any]], Any]] = {
    "bernoulli": _bernoulli,
    "rand": lambda tape, given: tape.uniform(_shape(given)),
    "rand_like": lambda tape, given: tape.uniform(_shape(given)),
    "uniform": lambda tape, given: tape.uniform(_shape(given), given["from"], given["to"]),
    "randn": lambda tape, given: tape.normal(_shape(given)),
    "randn_like": lambda tape, given: tape.normal(_shape(given)),
    "normal": _normal,
    "normal_functional": _normal,
    "randint": _randint,
    "randint_like": _randint,
    "random": _random,
    "randperm": lambda tape, given: tape.permutation(given["n"]),
    "exponential": lambda tape, given: -np.log1p(-tape.uniform(_shape(given))) / given["lambd"],
    "multinomial": lambda tape, given: tape.choice(_array(given["self"]), given["num_samples"], given["replacement"]),
}
