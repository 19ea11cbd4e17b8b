"""The port's side: PaddlePaddle. Names and layouts are turned into the reference's here, by the owning layer's type."""

import copy
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import paddle

from align.errors import EnvironmentFault, UsageError
from align.record.builders import HINT, Function
from align.record.observer import Sink
from align.record.origins import Writes
from align.record.places import noting_constructors
from align.record.randomness import Tape
from align.record.tracer import Tracer
from align.sides import (
    Named,
    Spec,
    Switch,
    overridden,
    paddle_exact,
    paddle_gradients,
    paddle_initial,
    paddle_random,
    paddle_recurrent,
    paddle_trace,
    round_constants,
)

FLAGS = {"FLAGS_cudnn_deterministic": True, "FLAGS_embedding_deterministic": 1, "FLAGS_cudnn_exhaustive_search": False}

# Where Paddle names a buffer otherwise (paddle.nn.layer.norm against torch.nn.modules.batchnorm).
BUFFER_NAMES = {"_mean": "running_mean", "_variance": "running_var"}


class PaddleSide:
    """PaddlePaddle on one device, with the switches that decide its numerics set before anything is computed."""

    name = "paddle"

    def __init__(self, device: str, threads: int, tf32: bool) -> None:
        self._switches = _set_switches(threads, tf32)
        if device == "gpu":
            if not paddle.device.is_compiled_with_cuda():
                raise EnvironmentFault(
                    f"paddle side, --device gpu: paddlepaddle {paddle.__version__} is a CPU wheel. Install "
                    "paddlepaddle-gpu 3.x and name its interpreter with --paddle-python, or use --paddle-device cpu"
                )
            if paddle.device.cuda.device_count() == 0:
                raise EnvironmentFault("paddle side, --device gpu: no GPU answers. Run with --device cpu")
        self._device = "gpu:0" if device == "gpu" else "cpu"
        paddle.set_device(self._device)
        self._dtype = "float32"
        self._exact = ExitStack()
        paddle_recurrent.install()

    def set_precision(self, dtype: str) -> None:
        self._dtype = dtype
        paddle.set_default_dtype(dtype)
        self._exact.close()
        if dtype == "float64":
            self._exact.enter_context(paddle_exact.exact())

    def build(
        self, builder: Callable[..., Any], arguments: Mapping[str, Any], seed: int = 0, drawn: bool = True
    ) -> Any:
        paddle.seed(seed)
        # Paddle has no half-precision kernels for initialisers on a CPU; the weights are loaded later anyhow.
        paddle.set_default_dtype("float64" if self._dtype == "float64" else "float32")
        with noting_constructors(paddle.nn.Layer):
            model = self._model(builder, arguments)
        paddle.set_default_dtype(self._dtype)
        # `to` casts integer buffers too, and nn.LSTM does not survive it: only where something floating needs it.
        floating = [tensor for _, _, tensor, _ in self._named(model) if tensor.is_floating_point()]
        if any(str(tensor.dtype).rpartition(".")[2] != self._dtype for tensor in floating):
            model = model.to(dtype=self._dtype)
        if self._dtype == "float64":
            # What SELU holds as attributes is written out in PyTorch's kernel, which does not round it.
            layers = model.sublayers(include_self=True)
            round_constants(layer for layer in layers if not isinstance(layer, paddle.nn.SELU))
        return model

    def writes(self) -> AbstractContextManager[Writes]:
        return paddle_initial.noting_writes()

    def _model(self, builder: Any, arguments: Mapping[str, Any]) -> paddle.nn.Layer:
        if isinstance(builder, paddle.nn.Layer):
            return copy.deepcopy(builder)
        made = builder if isinstance(builder, Function) else builder(**arguments)
        if isinstance(made, Function):
            return self.as_model(made)
        if not isinstance(made, paddle.nn.Layer):
            raise UsageError(f"paddle side: the builder gives {type(made).__name__}, not a paddle.nn.Layer; {HINT}")
        return made

    def size(self, builder: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        """Not known before it is built: Paddle has no tensors without memory."""

    def _named(self, model: Any) -> Iterable[tuple[str, str, paddle.Tensor, paddle.nn.Layer]]:
        """(reference name, kind, tensor, owner) of every parameter and every buffer that is saved."""
        layers = dict(model.named_sublayers(include_self=True))
        saved = model.state_dict().keys()
        named = [(name, "parameter", tensor) for name, tensor in model.named_parameters()]
        named += [(name, "buffer", tensor) for name, tensor in model.named_buffers() if name in saved]
        for name, kind, tensor in named:
            prefix, dot, last = name.rpartition(".")
            if last in BUFFER_NAMES:  # Paddle's running statistics are parameters that are not trained
                kind = "buffer"
            yield prefix + dot + BUFFER_NAMES.get(last, last), kind, tensor, layers[prefix]

    def specs(self, model: Any) -> list[Spec]:
        return [
            Spec(name, _reference_layout(np.empty(t.shape, bool), owner).shape, kind, type(owner).__name__)
            for name, kind, t, owner in self._named(model)
        ]

    def load(self, model: Any, state: Mapping[str, np.ndarray]) -> None:
        """Every source used once, every target filled once, or UsageError: set_state_dict itself only warns."""
        targets = {name: (tensor, owner) for name, _, tensor, owner in self._named(model)}
        if extra := sorted(set(state) ^ set(targets)):
            raise UsageError(f"weights and port differ in {len(extra)} names, first {extra[0]!r}")
        for name, (tensor, owner) in targets.items():
            array = _reference_layout(state[name], owner)
            if tuple(array.shape) != tuple(tensor.shape):
                raise UsageError(f"{name}: weights have shape {array.shape}, the port {tuple(tensor.shape)}")
            tensor.set_value(paddle.to_tensor(np.ascontiguousarray(array)).astype(tensor.dtype))

    def state(self, model: Any) -> dict[str, tuple[str, np.ndarray]]:
        return {n: (kind, _reference_layout(self.to_numpy(t), owner)) for n, kind, t, owner in self._named(model)}

    def gradients(self, model: Any) -> dict[str, np.ndarray | None]:
        return {
            name: None if tensor.grad is None else _reference_layout(self.to_numpy(tensor.grad), owner)
            for name, kind, tensor, owner in self._named(model)
            if kind == "parameter"
        }

    def clear_gradients(self, model: Any) -> None:
        for parameter in model.parameters():
            parameter.clear_gradient(False)

    def like_parameters(self, model: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, paddle.Tensor]:
        """Tensors of arrays in the reference's layout, each in the layout of the parameter of its name."""
        return {
            name: self.from_numpy(np.ascontiguousarray(_reference_layout(arrays[name], owner)))
            for name, kind, _, owner in self._named(model)
            if kind == "parameter" and name in arrays
        }

    def set_gradient(self, parameter: paddle.Tensor, gradient: paddle.Tensor | None) -> None:
        """Give the parameter a copy of this gradient, which clipping may then write to, or none."""
        parameter.clear_gradient(False)
        if gradient is not None:
            parameter.grad = gradient.clone()

    def from_numpy(self, array: np.ndarray, *, gradient: bool = False) -> paddle.Tensor:
        dtype = self._dtype if array.dtype.kind == "f" else None
        return paddle.to_tensor(np.array(array), dtype=dtype, stop_gradient=not gradient)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """A copy of the values on the CPU; bfloat16, which numpy lacks, is widened to float32."""
        if not isinstance(tensor, paddle.Tensor):
            return np.array(tensor)
        tensor = tensor.detach()
        # On a CPU, too, `numpy()` is a copy: what is later written into the tensor does not reach it.
        return (tensor.astype("float32") if tensor.dtype == paddle.bfloat16 else tensor).numpy()

    def backward(self, outputs: Iterable[Any], cotangents: Iterable[Any] | None = None) -> None:
        roots = list(outputs)
        given = [None] * len(roots) if cotangents is None else list(cotangents)
        # Paddle refuses a tensor that is named twice; the gradient of both is that of their sum.
        once: dict[int, tuple[Any, Any]] = {}
        for tensor, cotangent in zip(roots, given, strict=True):
            if id(tensor) in once:
                cotangent = once[id(tensor)][1] + cotangent
            once[id(tensor)] = tensor, cotangent
        tensors, sums = zip(*once.values(), strict=True)
        paddle.autograd.backward(list(tensors), None if cotangents is None else list(sums))

    def gradient(self, tensor: paddle.Tensor) -> np.ndarray:
        return self.to_numpy(paddle.zeros_like(tensor) if tensor.grad is None else tensor.grad)

    def tensors(self, model: paddle.nn.Layer) -> list[paddle.Tensor]:
        """Every parameter and every buffer, saved or not."""
        return [*model.parameters(), *model.buffers()]

    def named(self, model: paddle.nn.Layer) -> list[Named]:
        """Every tensor that is saved, with what makes an array of its shape one in the reference's layout."""
        return [
            Named(kind, name, tensor, partial(_reference_layout, owner=owner))
            for name, kind, tensor, owner in self._named(model)
        ]

    def memory(self, tensor: paddle.Tensor) -> tuple[int, int]:
        """Address and number of bytes of the values; (0, 0) where there are none, or not in one piece."""
        size = math.prod(tensor.shape)  # `tensor.size` is worked out by numpy, at ten times the cost
        if not tensor.is_dense() or size == 0 or not tensor._is_initialized():
            return 0, 0
        return tensor.data_ptr(), size * tensor.element_size()

    def view(self, tensor: paddle.Tensor) -> np.ndarray | None:
        """The values in the tensor's own memory; None where numpy cannot see that."""
        if not tensor.place.is_cpu_place() or tensor.dtype == paddle.bfloat16:
            return None
        return np.from_dlpack(tensor.detach())

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, paddle.Tensor)

    def version(self, tensor: paddle.Tensor) -> int | None:
        return tensor.inplace_version

    def on_gradient(self, tensor: paddle.Tensor, callback: Callable[[Any], None]) -> Any:
        return None if tensor.stop_gradient else tensor.register_hook(lambda gradient: callback(gradient))

    @contextmanager
    def hooked(self, model: Any, before: Callable[[str, Any], Any], after: Callable[[str, Any], Any]) -> Iterator[None]:
        """Call `before(layer name, inputs)` and `after(layer name, outputs)` around every layer of the model.

        Inputs are the positional ones, with the keyword ones as a last dictionary if there are any. What a callback
        returns, unless None, takes the place of the inputs or outputs.
        """
        handles = []
        try:
            for name, layer in model.named_sublayers(include_self=True):
                handles.append(layer.register_forward_pre_hook(_pre_hook(before, name), with_kwargs=True))
                handles.append(layer.register_forward_post_hook(lambda _, args, out, name=name: after(name, out)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def modules(self, model: Any) -> dict[str, Any]:
        """Every module by its dotted name, the model itself under ""."""
        return dict(model.named_sublayers(include_self=True))

    def fork(self, tensor: paddle.Tensor) -> paddle.Tensor:
        """The same values in a tensor and memory of its own, whose gradient is only what comes through it."""
        return tensor if tensor.stop_gradient else tensor.clone()

    def has_history(self, tensor: paddle.Tensor) -> bool:
        """Whether a gradient can be sent back from this tensor."""
        return not tensor.stop_gradient

    def received(self, tensor: paddle.Tensor) -> np.ndarray | None:
        return None if tensor.grad is None else self.to_numpy(tensor.grad)

    def trace(
        self, sink: Sink, model: Any = None, *, inputs: Any = (), gradients: bool = False
    ) -> AbstractContextManager[Tracer]:
        """Note every operation of the block, see `align.record.trace`; the tracer's `.trace` holds what was noted.

        `model` gives names to parameters and modules. `inputs` (nested tensors) are what the block works on, beside
        what an outermost module is called with. With `gradients`, backward must run inside the block, too.
        """
        saved = [] if model is None else self.named(model)
        return paddle_trace.trace(sink, model, saved, self.hooked, inputs, gradients)

    def drawing(self, tape: Tape, model: Any = None) -> AbstractContextManager[None]:
        """In this block every random function is answered by the tape; one that cannot be raises UsageError.

        `model` gives names to the module calls in which draws happen. The generator's state stays as it is.
        """
        return paddle_random.drawing(tape, model, self.hooked)

    @contextmanager
    def own_randomness(self, seed: int) -> Iterator[None]:
        """In this block the framework's own generator is seeded; it goes on afterwards as if nothing had been drawn."""
        states = paddle.get_rng_state()
        try:
            paddle.seed(seed)
            yield
        finally:
            paddle.set_rng_state(states)

    def attached(self, model: Any, what: Collection[str]) -> AbstractContextManager[None]:
        """In this block gradients flow through what stops them: `operations`, and `parameters` that are frozen."""
        return paddle_gradients.attached(model, what)

    def loop_points(self) -> list[tuple[Any, str, str]]:
        """(owner, attribute, kind of act) of the framework's functions that a training loop acts by."""
        backward = [(paddle.Tensor, "backward", "backward"), (paddle.autograd, "backward", "backward")]
        mode = [(paddle.nn.Layer, "__setattr__", "mode")]
        clear = {"clear_grad": "clear", "clear_gradients": "clear"}
        return [*backward, *mode, *overridden(paddle.optimizer.Optimizer, step="step", **clear)]

    def rate(self, optimizer: Any) -> float:
        """The learning rate of an optimizer's next update."""
        return optimizer.get_lr()

    def no_gradient(self) -> Any:
        return paddle.no_grad()

    def as_model(self, function: Callable[[Any], Any]) -> Any:
        class Wrapped(paddle.nn.Layer):
            def forward(self, *inputs: Any, **keywords: Any) -> Any:
                return function(*inputs, **keywords)

        return Wrapped()

    def set_training(self, model: Any, training: bool) -> None:
        model.train() if training else model.eval()

    def switches(self) -> list[Switch]:
        return self._switches

    def devices(self) -> dict[str, Any]:
        count = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
        return {"used": self._device, "gpus": [paddle.device.cuda.get_device_name(i) for i in range(count)]}

    def versions(self) -> dict[str, str]:
        return {"paddle": paddle.__version__, "cuda": str(paddle.version.cuda()), "cudnn": str(paddle.version.cudnn())}


def _reference_layout(array: np.ndarray, owner: paddle.nn.Layer) -> np.ndarray:
    """Paddle's Linear holds (in, out), PyTorch's (out, in); Bilinear's bias is (1, out), PyTorch's (out,); LayerNorm's
    scale and bias over several axes are flat, PyTorch's are not.

    The same view serves both ways. Nothing else differs.
    """
    if isinstance(owner, paddle.nn.LayerNorm) and len(owner._normalized_shape) > 1:
        return array.reshape(owner._normalized_shape if array.ndim == 1 else -1)
    if isinstance(owner, paddle.nn.Bilinear) and array.ndim < 3:  # of its two tensors, the bias
        return array[0] if array.ndim == 2 else array[None]
    return array.T if isinstance(owner, paddle.nn.Linear) and array.ndim == 2 else array


def _pre_hook(before: Callable[[str, Any], Any], name: str) -> Callable[..., Any]:
    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = before(name, (*args, kwargs) if kwargs else args)
        if changed is None:
            return None
        return (changed[:-1], changed[-1]) if kwargs else (changed, kwargs)

    return hook


def _set_switches(threads: int, tf32: bool) -> list[Switch]:
    """Set and read back. Names: Paddle's documentation of FLAGS; a CPU wheel does not have the GPU's."""
    paddle.base.core.set_num_threads(threads)
    switches = [Switch("threads", str(threads), str(_flag("FLAGS_paddle_num_threads") or threads))]
    for name, asked in FLAGS.items():
        if _flag(name) is not None:
            paddle.set_flags({name: asked})
        found = _flag(name)
        switches.append(Switch(name, str(asked), None if found is None else str(found)))
    for name in ("FLAGS_use_onednn", "FLAGS_use_autotune"):
        found = _flag(name)
        switches.append(Switch(name, "False", None if found is None else str(found)))
    mkl = os.environ.get("MKL_DEBUG_CPU_TYPE")  # see `align.record.process`
    if mkl:
        switches.append(Switch("MKL_DEBUG_CPU_TYPE", mkl, mkl))
    override = os.environ.get("NVIDIA_TF32_OVERRIDE")
    cuda = paddle.device.is_compiled_with_cuda()
    switches.append(Switch("NVIDIA_TF32_OVERRIDE", "None" if tf32 else "0", str(override) if cuda else None))
    return switches


def _flag(name: str) -> object:
    try:
        return paddle.get_flags(name)[name]
    except ValueError:
        return None


@contextmanager
def kept() -> Iterator[None]:
    """After this block what a `PaddleSide` has set is as it was before, but for the threads, which cannot be asked."""
    flags = {name: found for name in FLAGS if (found := _flag(name)) is not None}
    dtype, device, states = paddle.get_default_dtype(), paddle.get_device(), paddle.get_rng_state()
    try:
        yield
    finally:
        paddle.set_rng_state(states)
        paddle.set_device(device)
        paddle.set_default_dtype(dtype)
        paddle.set_flags(flags)
