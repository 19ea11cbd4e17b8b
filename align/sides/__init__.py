"""The two sides. Only files of this folder import a framework, and only in a worker process.

What a step sees of a framework is the `Side` protocol; anything beyond it comes from the case's own packages.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

SIDES = ("torch", "paddle")
DTYPES = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Switch:
    """One setting that changes numerics: as asked, as in force, and whether this installation has it."""

    name: str
    asked: str
    in_force: str | None
    note: str = ""

    @property
    def state(self) -> str:
        if self.in_force is None:
            return "not available"
        return "in force" if self.asked == self.in_force else "differs"


@dataclass(frozen=True)
class Spec:
    """One tensor of a model as the reference names and lays it out; `owner` is the class of the module holding it.

    `padding` is the row of an embedding that stands for nothing, if it has one.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    owner: str
    padding: int | None = None


# Framework classes that are only shelves: what derives from them alone computes with Python's own doubles.
CONTAINERS = {"Module", "ModuleDict", "ModuleList", "Sequential", "Layer", "LayerDict", "LayerList", "object"}


def round_constants(modules: Iterable[Any]) -> None:
    """Round every float attribute of the frameworks' own layers (epsilon, momentum, rates) to float32.

    Paddle's kernels keep such scalars in float32 even where tensors are float64, so in the twin both sides use the
    float32 value: an epsilon of 1e-6 is 1 + 2.5e-8 times itself in float32, which a low-variance row shows at 6.5e-10.
    What a user's module multiplies by is left alone: both frameworks take it as a double.
    """
    for module in modules:
        kinds = {c.__name__ for c in type(module).__mro__ if c.__module__.startswith(("torch.nn.", "paddle.nn."))}
        if not kinds - CONTAINERS:
            continue
        for name, value in list(vars(module).items()):
            if type(value) is float:
                setattr(module, name, float(np.float32(value)))


class Named(NamedTuple):
    """A tensor of the model: where it is from, its name, the tensor, and how its array gets the reference's layout."""

    origin: str
    name: str
    tensor: Any
    layout: Callable[[np.ndarray], np.ndarray] | None = None


class Side(Protocol):
    """What a framework offers to the steps. Arrays cross in the reference's names and layout."""

    name: str

    def set_precision(self, dtype: str) -> None: ...
    def build(
        self, builder: Callable[..., Any], arguments: Mapping[str, Any], seed: int = 0, drawn: bool = True
    ) -> Any: ...  # `drawn`: False where all parameters are loaded next, and need not be given random values
    def size(self, builder: Callable[..., Any], arguments: Mapping[str, Any]) -> int | None: ...
    def writes(self) -> AbstractContextManager[Any]: ...  # see `align.record.origins.Writes`
    def specs(self, model: Any) -> list[Spec]: ...
    def load(self, model: Any, state: Mapping[str, np.ndarray]) -> None: ...
    def state(self, model: Any) -> dict[str, tuple[str, np.ndarray]]: ...
    def gradients(self, model: Any) -> dict[str, np.ndarray | None]: ...
    def clear_gradients(self, model: Any) -> None: ...
    def like_parameters(self, model: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]: ...
    def set_gradient(self, parameter: Any, gradient: Any) -> None: ...
    def from_numpy(self, array: np.ndarray, *, gradient: bool = False) -> Any: ...
    def to_numpy(self, tensor: Any) -> np.ndarray: ...
    def backward(self, outputs: Iterable[Any], cotangents: Iterable[Any] | None = None) -> None: ...
    def gradient(self, tensor: Any) -> np.ndarray: ...
    def tensors(self, model: Any) -> list[Any]: ...
    def named(self, model: Any) -> list[Named]: ...
    def memory(self, tensor: Any) -> tuple[int, int]: ...
    def view(self, tensor: Any) -> np.ndarray | None: ...
    def is_tensor(self, value: Any) -> bool: ...
    def version(self, tensor: Any) -> int | None: ...  # None where writes to it are not counted
    def on_gradient(self, tensor: Any, callback: Callable[[Any], None]) -> Any: ...  # the hook, None where none can be
    def hooked(
        self, model: Any, before: Callable[[str, Any], Any], after: Callable[[str, Any], Any]
    ) -> AbstractContextManager[None]: ...
    def modules(self, model: Any) -> dict[str, Any]: ...
    def fork(self, tensor: Any) -> Any: ...
    def has_history(self, tensor: Any) -> bool: ...
    def received(self, tensor: Any) -> np.ndarray | None: ...
    def trace(
        self, sink: Any, model: Any = None, *, inputs: Any = (), gradients: bool = False
    ) -> AbstractContextManager[Any]: ...
    def drawing(self, tape: Any, model: Any = None) -> AbstractContextManager[None]: ...
    def own_randomness(self, seed: int) -> AbstractContextManager[None]: ...
    def attached(self, model: Any, what: Collection[str]) -> AbstractContextManager[None]: ...
    def no_gradient(self) -> Any: ...
    def loop_points(self) -> list[tuple[Any, str, str]]: ...
    def rate(self, optimizer: Any) -> float: ...
    def as_model(self, function: Callable[[Any], Any]) -> Any: ...
    def set_training(self, model: Any, training: bool) -> None: ...
    def switches(self) -> list[Switch]: ...
    def devices(self) -> dict[str, Any]: ...
    def versions(self) -> dict[str, str]: ...


def overridden(base: type, **kinds: str) -> list[tuple[type, str, str]]:
    """(class, method, kind) of every class from `base` on that defines one of these methods itself."""
    found, todo = [], [base]
    while todo:
        owner = todo.pop()
        found += [(owner, method, kind) for method, kind in kinds.items() if method in vars(owner)]
        todo += owner.__subclasses__()
    return found
