"""The reference's side: PyTorch."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

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
    round_constants,
    torch_exact,
    torch_initial,
    torch_random,
    torch_trace,
)


class TorchSide:
    """PyTorch on one device, with the switches that decide its numerics set before anything is computed."""

    name = "torch"

    def __init__(self, device: str, threads: int, tf32: bool) -> None:
        self._switches = _set_switches(threads, tf32)
        self._device = torch.device("cpu")
        if device == "gpu":
            if not torch.cuda.is_available():
                built = torch.version.cuda
                why = f"this PyTorch is built for CUDA {built}, but no GPU answers" if built else "it is a CPU wheel"
                raise EnvironmentFault(
                    f"torch side, --device gpu: no GPU to use: {why}. Run with --device cpu, or see `align doctor`"
                )
            self._device = torch.device("cuda", 0)
        self._dtype = torch.float32
        self._exact = ExitStack()

    def set_precision(self, dtype: str) -> None:
        self._dtype = getattr(torch, dtype)
        torch.set_default_dtype(self._dtype)
        self._exact.close()
        if dtype == "float64":
            self._exact.enter_context(torch_exact.exact())

    def build(
        self, builder: Callable[..., Any], arguments: Mapping[str, Any], seed: int = 0, drawn: bool = True
    ) -> Any:
        torch.manual_seed(seed)
        with noting_constructors(torch.nn.Module), nullcontext() if drawn else torch_initial.Undrawn():
            model = self._model(builder, arguments)
        model = model.to(device=self._device, dtype=self._dtype)
        if self._dtype == torch.float64:
            momenta = [(module, module.momentum) for module in model.modules() if isinstance(module, _BatchNorm)]
            round_constants(model.modules())
            for module, momentum in momenta:
                if (
                    momentum is not None
                ):  # Paddle's kernel holds what stays, in float32, where PyTorch's takes what goes
                    module.momentum = 1 - float(np.float32(1 - momentum))
        return model

    def writes(self) -> AbstractContextManager[Writes]:
        return torch_initial.noting_writes()

    def _model(self, builder: Any, arguments: Mapping[str, Any]) -> torch.nn.Module:
        if isinstance(builder, torch.nn.Module):
            return copy.deepcopy(builder)
        made = builder if isinstance(builder, Function) else builder(**arguments)
        if isinstance(made, Function):
            return self.as_model(made)
        if not isinstance(made, torch.nn.Module):
            raise UsageError(f"torch side: the builder gives {type(made).__name__}, not a torch.nn.Module; {HINT}")
        return made

    def size(self, builder: Callable[..., Any], arguments: Mapping[str, Any]) -> int | None:
        """How many parameters the model has, without room for them; None where it cannot be built without."""
        try:
            with torch.device("meta"):
                return sum(parameter.numel() for parameter in self._model(builder, arguments).parameters())
        except (
            Exception,
            SystemExit,
        ):  # it may need real tensors; what else is wrong shows when it is built
            return None

    def _named(self, model: Any) -> Iterable[tuple[str, str, torch.Tensor, torch.nn.Module]]:
        """(name, kind, tensor, owner) of every parameter and every buffer that is saved, tied ones under one name."""
        modules = dict(model.named_modules())
        saved = model.state_dict().keys()
        named = [(name, "parameter", tensor) for name, tensor in model.named_parameters()]
        named += [(name, "buffer", tensor) for name, tensor in model.named_buffers() if name in saved]
        named = [row for row in named if not _counts_batches(row[0], modules)]
        for name, kind, tensor in named:
            yield name, kind, tensor, modules[name.rpartition(".")[0]]

    def specs(self, model: Any) -> list[Spec]:
        return [
            Spec(name, tuple(t.shape), kind, type(owner).__name__, getattr(owner, "padding_idx", None))
            for name, kind, t, owner in self._named(model)
        ]

    def load(self, model: Any, state: Mapping[str, np.ndarray]) -> None:
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
        first = {id(tensor): name for name, _, tensor, _ in self._named(model)}
        # Tied tensors have one name here, and several in a state dict.
        tied = {name: first.get(id(tensor)) for name, tensor in model.state_dict(keep_vars=True).items()}
        tensors |= {name: tensors[own] for name, own in tied.items() if name not in tensors and own in tensors}
        modules = dict(model.named_modules())
        tensors |= {name: own for name, own in model.state_dict().items() if _counts_batches(name, modules)}
        model.load_state_dict(tensors, strict=True)

    def state(self, model: Any) -> dict[str, tuple[str, np.ndarray]]:
        return {name: (kind, self.to_numpy(tensor)) for name, kind, tensor, _ in self._named(model)}

    def gradients(self, model: Any) -> dict[str, np.ndarray | None]:
        return {n: None if p.grad is None else self.to_numpy(p.grad) for n, p in model.named_parameters()}

    def clear_gradients(self, model: Any) -> None:
        model.zero_grad(set_to_none=True)

    def like_parameters(self, model: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Tensors of arrays in the reference's layout, each in the layout of the parameter of its name."""
        return {name: self.from_numpy(arrays[name]) for name, _ in model.named_parameters() if name in arrays}

    def set_gradient(self, parameter: torch.Tensor, gradient: torch.Tensor | None) -> None:
        """Give the parameter a copy of this gradient, which clipping may then write to, or none."""
        parameter.grad = None if gradient is None else gradient.clone()

    def from_numpy(self, array: np.ndarray, *, gradient: bool = False) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array)).to(self._device)
        if tensor.is_floating_point():
            tensor = tensor.to(self._dtype)
        return tensor.requires_grad_(gradient)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """A copy of the values on the CPU; bfloat16, which numpy lacks, is widened to float32."""
        if not isinstance(tensor, torch.Tensor):
            return np.array(tensor)
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()

    def backward(self, outputs: Iterable[Any], cotangents: Iterable[Any] | None = None) -> None:
        torch.autograd.backward(list(outputs), None if cotangents is None else list(cotangents))

    def gradient(self, tensor: torch.Tensor) -> np.ndarray:
        return self.to_numpy(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)

    def tensors(self, model: torch.nn.Module) -> list[torch.Tensor]:
        """Every parameter and every buffer, saved or not."""
        return [*model.parameters(), *model.buffers()]

    def named(self, model: torch.nn.Module) -> list[Named]:
        """Every tensor that is saved; the layout is the reference's."""
        return [Named(kind, name, tensor) for name, kind, tensor, _ in self._named(model)]

    def memory(self, tensor: torch.Tensor) -> tuple[int, int]:
        """Address and number of bytes of the values; (0, 0) where they do not lie in one piece."""
        if tensor.layout != torch.strided:
            return 0, 0
        return tensor.data_ptr(), tensor.numel() * tensor.element_size()

    def view(self, tensor: torch.Tensor) -> np.ndarray | None:
        """The values in the tensor's own memory; None where numpy cannot see that."""
        if tensor.device.type != "cpu" or tensor.dtype == torch.bfloat16 or tensor.layout != torch.strided:
            return None
        return tensor.detach().numpy()

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    def version(self, tensor: torch.Tensor) -> int | None:
        return None if tensor.is_inference() else tensor._version

    def on_gradient(self, tensor: torch.Tensor, callback: Callable[[Any], None]) -> Any:
        if not tensor.requires_grad:
            return None
        # Of an operation's several outputs, those that nothing was computed from are told None; Paddle tells zeros.
        zeros = partial(torch.zeros, tensor.shape, dtype=tensor.dtype, device=tensor.device)
        return tensor.register_hook(lambda gradient: callback(zeros() if gradient is None else gradient))

    @contextmanager
    def hooked(self, model: Any, before: Callable[[str, Any], Any], after: Callable[[str, Any], Any]) -> Iterator[None]:
        """Call `before(module name, inputs)` and `after(module name, outputs)` around every module of the model.

        Inputs are the positional ones, with the keyword ones as a last dictionary if there are any. What a callback
        returns, unless None, takes the place of the inputs or outputs.
        """
        handles = []
        try:
            for name, module in model.named_modules():
                handles.append(module.register_forward_pre_hook(_pre_hook(before, name), with_kwargs=True))
                handles.append(module.register_forward_hook(lambda _, args, out, name=name: after(name, out)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def modules(self, model: Any) -> dict[str, Any]:
        """Every module by its dotted name, the model itself under ""."""
        return dict(model.named_modules())

    def fork(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same values in a tensor and memory of its own, whose gradient is only what comes through it."""
        return tensor.clone() if tensor.requires_grad else tensor

    def has_history(self, tensor: torch.Tensor) -> bool:
        """Whether a gradient can be sent back from this tensor."""
        return tensor.requires_grad

    def received(self, tensor: torch.Tensor) -> np.ndarray | None:
        return None if tensor.grad is None else self.to_numpy(tensor.grad)

    def trace(
        self, sink: Sink, model: Any = None, *, inputs: Any = (), gradients: bool = False
    ) -> AbstractContextManager[Tracer]:
        """Note every operation of the block, see `align.record.trace`; the tracer's `.trace` holds what was noted.

        `model` gives names to parameters and modules. `inputs` (nested tensors) are what the block works on, beside
        what an outermost module is called with. With `gradients`, backward must run inside the block, too.
        """
        saved = [] if model is None else self.named(model)
        return torch_trace.trace(sink, model, saved, self.hooked, inputs, gradients)

    def drawing(self, tape: Tape, model: Any = None) -> AbstractContextManager[None]:
        """In this block every random function is answered by the tape; one that cannot be raises UsageError.

        `model` gives names to the module calls in which draws happen. The generator's state stays as it is.
        """
        return torch_random.drawing(tape, model, self.hooked)

    @contextmanager
    def own_randomness(self, seed: int) -> Iterator[None]:
        """In this block the framework's own generator is seeded; it goes on afterwards as if nothing had been drawn."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield

    def loop_points(self) -> list[tuple[Any, str, str]]:
        """(owner, attribute, kind of act) of the framework's functions that a training loop acts by."""
        backward = [(torch.Tensor, "backward", "backward"), (torch.autograd, "backward", "backward")]
        mode = [(torch.nn.Module, "__setattr__", "mode")]
        return [*backward, *mode, *overridden(torch.optim.Optimizer, step="step", zero_grad="clear")]

    def rate(self, optimizer: Any) -> float:
        """The learning rate of the next update of an optimizer's first group."""
        return optimizer.param_groups[0]["lr"]

    def no_gradient(self) -> Any:
        return torch.no_grad()

    def as_model(self, function: Callable[[Any], Any]) -> Any:
        class Wrapped(torch.nn.Module):
            def forward(self, *inputs: Any, **keywords: Any) -> Any:
                return function(*inputs, **keywords)

        return Wrapped()

    def set_training(self, model: Any, training: bool) -> None:
        model.train(training)

    def switches(self) -> list[Switch]:
        return self._switches

    def devices(self) -> dict[str, Any]:
        count = torch.cuda.device_count()
        return {"used": str(self._device), "gpus": [torch.cuda.get_device_name(i) for i in range(count)]}

    def versions(self) -> dict[str, str]:
        return {
            "torch": torch.__version__,
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }


def _pre_hook(before: Callable[[str, Any], Any], name: str) -> Callable[..., Any]:
    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = before(name, (*args, kwargs) if kwargs else args)
        if changed is None:
            return None
        return (changed[:-1], changed[-1]) if kwargs else (changed, kwargs)

    return hook


def _counts_batches(name: str, modules: Mapping[str, torch.nn.Module]) -> bool:
    """Whether it is the counter that a batch normalisation with a momentum keeps and never reads; Paddle has none."""
    owner, _, last = name.rpartition(".")
    return last == "num_batches_tracked" and getattr(modules[owner], "momentum", None) is not None


def _set_switches(threads: int, tf32: bool) -> list[Switch]:
    """Set and read back. Names: PyTorch's notes on reproducibility and on CUDA semantics (TensorFloat-32)."""
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms, without 3 s of importing Inductor
    # In evaluation without gradients it would replace a whole encoder layer by one kernel that no hook sees into.
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    asked_and_found: list[tuple[str, object, object]] = [
        ("threads", threads, torch.get_num_threads()),
        ("deterministic algorithms", True, torch.are_deterministic_algorithms_enabled()),
        ("mha fast path", False, torch.backends.mha.get_fastpath_enabled()),
        ("cudnn.benchmark", False, torch.backends.cudnn.benchmark),
        ("cudnn.deterministic", True, torch.backends.cudnn.deterministic),
        ("cuda.matmul.allow_tf32", tf32, torch.backends.cuda.matmul.allow_tf32),
        ("cudnn.allow_tf32", tf32, torch.backends.cudnn.allow_tf32),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8", os.environ.get("CUBLAS_WORKSPACE_CONFIG")),
        ("NVIDIA_TF32_OVERRIDE", None if tf32 else "0", os.environ.get("NVIDIA_TF32_OVERRIDE")),
    ]
    cuda = torch.version.cuda is not None
    return [
        Switch(name, str(asked), str(found) if cuda or "cud" not in name.lower() else None)
        for name, asked, found in asked_and_found
    ]


def _flags() -> dict[Any, tuple[str, ...]]:
    cuda = torch.backends.cuda.matmul
    reduced = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    return {torch.backends.cudnn: ("benchmark", "deterministic", "allow_tf32"), cuda: ("allow_tf32", *reduced)}


@contextmanager
def kept() -> Iterator[None]:
    """After this block everything that a `TorchSide` has set is as it was before."""
    held = [(owner, name, getattr(owner, name)) for owner, names in _flags().items() for name in names]
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    strict = torch.get_deterministic_debug_mode()
    fast, states = torch.backends.mha.get_fastpath_enabled(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(states)
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_deterministic_debug_mode(strict)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        for owner, name, value in held:
            setattr(owner, name, value)
