"""Tracing PyTorch: a function mode sees each call of a built-in function or method, with its Python caller.

A function mode rather than a dispatch mode, because what it sees are the words of the source (linear, layer_norm,
softmax), as Paddle's kernels are, and because an output's gradient can be watched as soon as the call returns. Fused
attention would hide the scores and the softmax; it is replaced by the operations that define it.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from align.record.identities import Memory
from align.record.observer import Sink
from align.record.tracer import Hooked, Tracer, resting_collector, tensors_in
from align.sides import Named

Tensor = torch.Tensor

# Getters that return tensors; all others are questions about one.
_GETTERS = {"T", "mT", "H", "mH", "data", "real", "imag"}
# What makes tensors without asking a mode: (owner, name).
_UNASKED = [(torch, "from_numpy"), (torch, "frombuffer"), (torch, "from_dlpack"), (torch.utils.dlpack, "from_dlpack")]
_UNASKED += [(Tensor, "_make_subclass")]  # nn.Parameter(...)
# Positions of the running statistics and of the flag that has them updated; no version counts that.
_STATISTICS = {"batch_norm": (3, 4, 5), "instance_norm": (3, 4, 5)}
# Functions of torch.nn.functional ask these whether a mode wants them whole. They are composites; their parts are
# wanted, which are built-in functions and ask in C++.
_ASKED = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_ATTENTION = torch.nn.functional.scaled_dot_product_attention


class TorchProbe:
    """`align.record.tracer.Probe` for torch.Tensor."""

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, Tensor)

    def version(self, tensor: Any) -> int:
        try:
            return tensor._version
        except RuntimeError:  # made in inference mode, where nothing counts
            return 0

    def memory(self, tensor: Any) -> Memory | None:
        if tensor.layout != torch.strided or tensor.is_meta or not tensor.numel():
            return None
        shape, stride, low = tensor.shape, tensor.stride(), tensor.data_ptr()
        last = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        high = low + (last + 1) * tensor.element_size()
        return Memory(tensor.untyped_storage().data_ptr(), low, high, (shape, stride, tensor.dtype))

    def describe(self, tensor: Any) -> tuple[tuple[int, ...], str, bool]:
        return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.requires_grad

    def copy(self, tensor: Any) -> np.ndarray:
        tensor = tensor.detach()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        if tensor.is_cuda:
            return tensor.cpu().numpy()
        # "K" keeps the order of a transposed view, which would take several times as long to write out in order.
        return tensor.resolve_conj().resolve_neg().numpy().copy(order="K")

    def watch(self, tensor: Any, callback: Callable[[Any], None]) -> Callable[[], None]:
        def hook(gradient: Any) -> None:
            with torch._C.DisableTorchFunction():
                callback(gradient)

        return tensor.register_hook(hook).remove


class _Mode(TorchFunctionMode):
    def __init__(self, tracer: Tracer, version: Callable[[Any], int]) -> None:
        super().__init__()
        self._tracer, self._version = tracer, version

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", type(function).__name__)
        if name == "__get__" or name == "__set__":
            attribute = function.__self__.__name__  # type: ignore[attr-defined]
            if name == "__get__" and attribute not in _GETTERS:
                result = function(*args)
                if attribute == "grad" and result is not None:
                    self._tracer.take_gradient(args[0], result)
                return result
            if name == "__set__" and attribute != "data":
                return function(*args)
            name = attribute if name == "__get__" else f"set_{attribute}"
        if _opaque():
            return function(*args, **kwargs)
        if function is _ATTENTION and not args[0].is_nested:
            with self:
                return _attention(*args, **kwargs)
        return self._traced(name, function, args, kwargs)

    def unasked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, noted as if it had asked the mode."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if not torch._C._is_torch_function_mode_enabled() or _opaque():
                return function(*args, **kwargs)
            with torch._C.DisableTorchFunction():
                return self._traced(name, function, args, kwargs)

        return call

    def _traced(self, name: str, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> Any:
        tensors = tensors_in(kwargs, Tensor, tensors_in(args, Tensor, []))
        versions = [self._version(tensor) for tensor in tensors]
        inputs = self._tracer.read(tensors)
        result = function(*args, **kwargs)
        outputs = tensors_in(result, Tensor, [])
        if outputs or tensors:
            self._tracer.note(
                name,
                tensors,
                inputs,
                versions,
                outputs,
                [*((str(i), value) for i, value in enumerate(args)), *kwargs.items()],
                sys._getframe(2),
                _written(name, args),
            )
        return result


def _opaque() -> bool:
    """Inside backward, whose results are gradients, not operations; inside vmap, whose tensors hold no values."""
    return torch._C._current_graph_task_id() != -1 or torch._C._functorch.maybe_current_level() is not None


def _written(name: str, args: tuple) -> list[Any]:
    """Arguments that the function has written to without counting it."""
    if name == "set_data":
        return [args[0]]
    if name not in _STATISTICS or len(args) < 6:
        return []
    mean, variance, updates = (args[i] for i in _STATISTICS[name])
    return [tensor for tensor in (mean, variance) if updates and tensor is not None]


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(q k' / sqrt(d) + mask) v, as the documentation of `scaled_dot_product_attention` defines it."""
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    scores = (query * (1 / math.sqrt(query.size(-1)) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
        else:
            scores = scores + attn_mask
    weights = torch.softmax(scores, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # A query that may look at nothing yields zeros, not NaN.
        weights = weights.masked_fill(attn_mask.logical_not().all(-1, keepdim=True), 0.0)
    if dropout_p:
        weights = torch.dropout(weights, dropout_p, True)
    return weights @ value


@contextmanager
def trace(
    sink: Sink, model: Any, saved: Iterable[Named], hooked: Hooked, inputs: Any, gradients: bool
) -> Iterator[Tracer]:
    """`TorchSide.trace`. Everything is put back on leaving, whatever happens."""
    named = [] if model is None else [*saved, *_unsaved(model, {id(entry.tensor) for entry in saved})]
    probe = TorchProbe()
    tracer = Tracer("torch", probe, sink, named, gradients)
    tracer.unseen = _unseen
    tracer.given(inputs)
    functional, fast_path = torch.nn.functional, torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for name in _ASKED:
            stack.callback(setattr, functional, name, getattr(functional, name))
            setattr(functional, name, _never)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(tracer.close)
        stack.enter_context(resting_collector())
        if model is not None:
            stack.enter_context(hooked(model, _unseen(tracer.enter), _unseen(tracer.leave)))
        mode = _Mode(tracer, probe.version)
        for owner, name in _UNASKED:
            mine = name in vars(owner)
            stack.callback(setattr if mine else delattr, owner, name, *([getattr(owner, name)] if mine else []))
            setattr(owner, name, mode.unasked(name, getattr(owner, name)))
        stack.enter_context(mode)
        yield tracer


def _unseen(call: Callable[..., Any]) -> Callable[..., Any]:
    """What is asked about tensors from outside the model is no operation."""

    def wrapped(*args: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return call(*args)

    return wrapped


def _never(*_: object) -> bool:
    return False


def _unsaved(model: Any, seen: set[int]) -> Iterator[Named]:
    """What modules hold besides parameters and saved buffers: other buffers, tensors as attributes."""
    for prefix, module in model.named_modules():
        held = {**vars(module), **module._buffers}
        del held["_parameters"], held["_buffers"], held["_modules"]
        for name, value in held.items():
            for index, tensor in enumerate(tensors_in(value, Tensor, [])):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    label = f"{prefix}.{name}".lstrip(".") + (f".{index}" if tensor is not value else "")
                    yield Named("attribute", label, tensor)
