"""What a step sees while it records: its side, the case, the plan, the reference's recording, and where to put tensors."""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from align.case import Case
from align.errors import UsageError
from align.plan import Plan
from align.record.store import Store, StoreWriter
from align.sides import Side


def resolve(path: str) -> Any:
    """The object at an import path `module:name`; UsageError says which half is not there."""
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: no module {error.name!r}; check the import path and the working directory") from None
    if not hasattr(module, attribute):
        raise UsageError(f"{path}: module {module_name!r} has no {attribute!r}")
    return getattr(module, attribute)


class Context:
    """One step of one run. Inputs come from `plan` or `reference`, results go through `emit`; nothing else leaks."""

    def __init__(
        self,
        side: Side,
        case: Case,
        plan: Plan,
        dtype: str,
        writer: StoreWriter,
        reference: Callable[[str], Store],
        progress: Callable[[int, int], None],
    ) -> None:
        self.side, self.case, self.plan, self.dtype = side, case, plan, dtype
        self._writer, self._reference, self.progress = writer, reference, progress

    def package(self, module: str) -> ModuleType:
        """A module of the side's own package: `package("losses")` is `torch_ref.losses` or `paddle_impl.losses`."""
        return importlib.import_module(f"{self.case.package(self.side.name)}.{module}")

    def model(self, training: bool = False) -> Any:
        """The case's model with the plan's weights, loaded by the harness: a bug in `weights` must not reach here."""
        model = self.side.build(resolve(self.case.builder(self.side.name)), self.case.build)
        self.side.load(model, self.arrays("weights/"))
        self.side.set_training(model, training)
        return model

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The plan's arrays under a prefix, named without it."""
        return {n.removeprefix(prefix): self.plan.tensors[n] for n in self.plan.tensors if n.startswith(prefix)}

    def tensor(self, name: str, *, gradient: bool = False) -> Any:
        """A tensor of the plan, floating ones in the run's dtype."""
        return self.side.from_numpy(self.plan.tensors[name], gradient=gradient)

    def inputs(self, prefix: str = "input") -> list[Any]:
        return [self.tensor(f"{prefix}/{spec.name}") for spec in self.case.inputs]

    def recorded(self, step: str) -> Store:
        """What the reference recorded in the working dtype for an earlier step."""
        return self._reference(step)

    def scalar(self, value: float) -> float:
        """A recipe value as both sides shall use it.

        Paddle's kernels hold scalars in float32 even when tensors are float64, so in the twin both sides use the
        float32 value; what then still differs is meaning.
        """
        return float(np.float32(value)) if self.dtype == "float64" else value

    def scalars(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.scalar(value) if isinstance(value, float) else value for name, value in values.items()}

    def emit(self, name: str, value: Any, kind: str, *, headline: bool = False) -> None:
        """Record a tensor, array or number; tuples, lists and dictionaries are flattened by path."""
        if isinstance(value, Mapping):
            for key, item in value.items():
                self.emit(f"{name}/{key}", item, kind, headline=headline)
        elif isinstance(value, (tuple, list)):
            for index, item in enumerate(value):
                self.emit(f"{name}/{index}", item, kind, headline=headline)
        elif value is not None:
            self._writer.add(name, self.side.to_numpy(value), kind, headline=headline)
