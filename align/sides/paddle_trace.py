"""Tracing PaddlePaddle, which has no dispatch mode: while a block is traced, its entry points are wrapped.

Three kinds, each once for one operation: the kernels of `paddle._C_ops` (which the functions of `paddle.*` look up when
they are called) together with the names under which other modules imported one; the methods of `paddle.Tensor` that
are written in C++ and reach no kernel by name (operators, indexing, assignment, clone, detach); and what makes or fills
a tensor without any kernel (`Tensor(...)`, `set_value`).
"""

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import paddle
from paddle import _C_ops, _legacy_C_ops

from align.record.identities import Memory
from align.record.observer import Sink
from align.record.tracer import Hooked, Tracer, resting_collector, tensors_in
from align.sides import Named

Tensor = paddle.Tensor

# Methods written in C++ that reach no kernel by name.
_REFLECTED = ("add", "sub", "mul", "div", "truediv", "floordiv", "pow", "mod", "matmul")
_BYPASSING = [f"__{prefix}{name}__" for name in _REFLECTED for prefix in ("", "r")]
_BYPASSING += [f"__{name}__" for name in ("gt", "ge", "lt", "le", "eq", "ne")]
_BYPASSING += ["_getitem_dygraph", "_setitem_dygraph", "clone", "detach", "detach_", "contiguous"]
_BYPASSING += ["copy_", "_copy_to", "_new_shared_tensor", "indices", "values", "crows", "cols"]
_BYPASSING += ["to_sparse_csr", "to_sparse_coo", "to_dense", "coalesce"]
# How many outputs of a kernel are results; the others serve its backward only.
_RESULTS = {"einsum": 1, "batch_norm": 1, "sync_batch_norm_": 1}
# Running statistics that a kernel writes to, unless the flag (a position, too) says that it only tests.
_STATISTICS = {"batch_norm": (1, 2, 5), "sync_batch_norm_": (1, 2, 5)}
# Their first argument receives what the tensor holds; no version says so.
_SHARING = ("_share_underline_tensor_to", "_share_buffer_to", "_unsafe_share_buffer_to")


class PaddleProbe:
    """`align.record.tracer.Probe` for paddle.Tensor."""

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, Tensor)

    def version(self, tensor: Any) -> int:
        return tensor._inplace_version() if tensor._is_initialized() else -1

    def memory(self, tensor: Any) -> Memory | None:
        if not tensor._is_initialized() or not tensor.is_dense():
            return None
        shape, stride, low = tuple(tensor.shape), tuple(tensor.strides), tensor.data_ptr()
        if 0 in shape:
            return None
        last = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        high = low + (last + 1) * tensor.element_size()
        return Memory(low - tensor.offset, low, high, (shape, stride, tensor.dtype))

    def describe(self, tensor: Any) -> tuple[tuple[int, ...], str, bool]:
        return tuple(tensor.shape), str(tensor.dtype).removeprefix("paddle."), not tensor.stop_gradient

    def copy(self, tensor: Any) -> np.ndarray:
        if not tensor._is_initialized():
            return np.empty(0)
        if tensor.dtype == paddle.bfloat16:
            tensor = tensor.astype("float32")
        return tensor.numpy()  # a copy, on a CPU too

    def watch(self, tensor: Any, callback: Callable[[Any], None]) -> Callable[[], None]:
        # Not `register_hook`: its handle would keep the tensor alive, and by it the graph.
        held, version, hook = weakref.ref(tensor), self.version(tensor), tensor._register_grad_hook(callback)

        def remove() -> None:
            alive = held()
            # A write in place has left the hook with the node that made the old value; the number is another's now.
            if alive is not None and self.version(alive) == version:
                alive._remove_grad_hook(hook)

        return remove


class _Dispatch:
    """Calls the tracer around a wrapped function, unless one is running already or it is another thread's."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer, self._thread = tracer, threading.get_ident()
        self._inside = False

    def pausing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What runs inside is no operation: backward, and the tracer's own work."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            before, self._inside = self._inside, True
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = before

        return call

    def traced(
        self, name: str, function: Callable[..., Any], receiver: int | None = None, makes: bool = False
    ) -> Callable[..., Any]:
        """`receiver` is the argument that the function writes to unseen; `makes` says that it is the first's maker."""
        overwrites = name.endswith("_") and not name.endswith("__")

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside or threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            self._inside = True
            try:
                return self._run(name, function, args, kwargs, overwrites, receiver, makes)
            finally:
                self._inside = False

        return wraps(function)(call) if not isinstance(function, BuiltinFunctionType) else call

    def _run(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple,
        kwargs: Mapping[str, Any],
        overwrites: bool,
        receiver: int | None,
        makes: bool,
    ) -> Any:
        tensors = tensors_in(kwargs, Tensor, tensors_in(args[1:] if makes else args, Tensor, []))
        tensors = [tensor for tensor in tensors if tensor._is_initialized()]
        versions = [tensor._inplace_version() for tensor in tensors]
        inputs = self._tracer.read(tensors)
        result = function(*args, **kwargs)
        outputs = tensors_in(result, Tensor, [])[: _RESULTS.get(name)]
        written: Sequence[Any] = ()
        if name in _STATISTICS and len(args) > max(_STATISTICS[name]):
            mean, variance, tests = (args[i] for i in _STATISTICS[name])
            written = [] if tests else [mean, variance]
        elif overwrites:
            given = {id(tensor) for tensor in tensors_in(args, Tensor, [])}
            written = [tensor for tensor in outputs if id(tensor) in given]
        elif receiver is not None and args[receiver]._is_initialized():
            written = [args[receiver]]
        elif makes and args[0]._is_initialized():
            outputs = [args[0]]
        if outputs or written or tensors:
            self._tracer.note(
                name,
                tensors,
                inputs,
                versions,
                outputs,
                [*((str(i), value) for i, value in enumerate(args)), *kwargs.items()],
                sys._getframe(2),
                written,
            )
        return result

    def gradient(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A getter of `.grad`."""

        def call(tensor: Any, *args: Any) -> Any:
            result = function(tensor, *args)
            if result is not None and not self._inside:
                self.pausing(self._tracer.take_gradient)(tensor, result)
            return result

        return call


@contextmanager
def trace(
    sink: Sink, model: Any, saved: Iterable[Named], hooked: Hooked, inputs: Any, gradients: bool
) -> Iterator[Tracer]:
    """`PaddleSide.trace`. Everything is put back on leaving, whatever happens."""
    named = [] if model is None else [*saved, *_unsaved(model, {id(entry.tensor) for entry in saved})]
    tracer = Tracer("paddle", PaddleProbe(), sink, named, gradients)
    tracer.given(inputs)
    dispatch = _Dispatch(tracer)
    tracer.unseen = dispatch.pausing
    with ExitStack() as stack:
        stack.callback(tracer.close)
        stack.enter_context(resting_collector())
        if model is not None:
            stack.enter_context(hooked(model, dispatch.pausing(tracer.enter), dispatch.pausing(tracer.leave)))
        replacements = list(_replacements(dispatch))
        stack.callback(_put_back, replacements)
        for owner, name, _, replacement in replacements:
            setattr(owner, name, replacement)
        yield tracer


def _put_back(replacements: Iterable[tuple[Any, str, Any, Any]]) -> None:
    for owner, name, original, _ in replacements:
        setattr(owner, name, original)


def _replacements(dispatch: _Dispatch) -> Iterator[tuple[Any, str, Any, Any]]:
    """(owner, attribute, what it is, what it shall be meanwhile)."""
    kernels = {}
    for module in (_legacy_C_ops, _C_ops):
        for name, function in vars(module).items():
            if _is_kernel(function):
                kernels[function] = dispatch.traced(name, function)
    for owner, name, function in _holders(kernels):
        yield owner, name, function, kernels[function]
    methods = vars(Tensor)
    for name in _BYPASSING:
        if name in methods:
            yield Tensor, name, methods[name], dispatch.traced(name, methods[name])
    for name in _SHARING:
        yield Tensor, name, methods[name], dispatch.traced(name, methods[name], receiver=1)
    yield Tensor, "set_value", methods["set_value"], dispatch.traced("set_value", methods["set_value"], receiver=0)
    yield Tensor, "__init__", methods["__init__"], dispatch.traced("to_tensor", methods["__init__"], makes=True)
    grad, data = methods["grad"], methods["data"]
    yield Tensor, "grad", grad, property(dispatch.gradient(grad.__get__), grad.__set__)
    yield (
        Tensor,
        "data",
        data,
        property(dispatch.traced("data", data.__get__), dispatch.traced("set_data", data.__set__, receiver=0)),
    )
    yield Tensor, "_grad_ivar", methods["_grad_ivar"], dispatch.gradient(methods["_grad_ivar"])
    eager = paddle.base.core.eager
    yield eager, "run_backward", eager.run_backward, dispatch.pausing(eager.run_backward)
    yield eager, "run_partial_grad", eager.run_partial_grad, dispatch.traced("grad", eager.run_partial_grad)


def _holders(kernels: Mapping[Any, Any]) -> Iterator[tuple[Any, str, Any]]:
    """(module, name, kernel) wherever a module holds one under a name: a few of Paddle's import them, a user may."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if _is_kernel(value) and value in kernels:
                yield module, name, value


def _is_kernel(value: Any) -> bool:
    """Whether it is a kernel of Paddle's, or what stands in for one: an exact one, or one that a tape answers."""
    function = value.func if isinstance(value, partial) else value
    stands_in = isinstance(function, FunctionType) and function.__module__.startswith(__package__)
    return stands_in or isinstance(value, BuiltinFunctionType)


def _unsaved(model: Any, seen: set[int]) -> Iterator[Named]:
    """What layers hold besides parameters and saved buffers: other buffers, tensors as attributes."""
    for prefix, layer in model.named_sublayers(include_self=True):
        held = {**vars(layer), **layer._buffers}
        del held["_parameters"], held["_buffers"], held["_sub_layers"]
        for name, value in held.items():
            for index, tensor in enumerate(tensors_in(value, Tensor, [])):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    label = f"{prefix}.{name}".lstrip(".") + (f".{index}" if tensor is not value else "")
                    yield Named("attribute", label, tensor)
