"""The tensors of a model, each with a sketch of its gradient under weights that depend on shapes alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

from align.case import Case
from align.errors import UsageError
from align.plan import Plan
from align.plan.weights import by_shape
from align.record.context import Context, arguments
from align.record.naming import Naming
from align.record.observer import leaves
from align.record.randomness import Tape
from align.record.sketch import sketch
from align.sides import Side, Spec


class Anonymous(Context):
    """A context whose model has weights by shape, whatever its tensors are called."""

    def __init__(self, side: Side, case: Case, plan: Plan) -> None:
        super().__init__(side, case, plan, "float64", None, _nothing_recorded, lambda done, total: None)  # type: ignore[arg-type]

    @property
    def naming(self) -> Naming:
        return Naming()


def _nothing_recorded(step: str) -> Any:
    raise UsageError(f"nothing of {step} is recorded before parameters are paired")


def table(side: Side, case: Case, plan: Plan, build: Callable[[], Any]) -> list[dict[str, Any]]:
    """Name, shape, kind, owner of every tensor of the model, in its own order; `print` where it has a gradient.

    Raises UsageError for a model that gives other outputs when it is run again on the same inputs.
    """
    side.set_precision("float64")
    model = build()
    specs = side.specs(model)
    side.load(model, by_shape(specs, case.seed))
    side.set_training(model, False)
    context = Anonymous(side, case, plan)

    calls = _Calls(side)

    def run() -> list[Any]:
        # Where there is a backward, with gradients at the inputs too: a first module may take it for granted that they
        # are wanted (Paddle's `prelu` ends the process where they are not).
        leaf = context.inputs(gradient=bool(specs))
        positional, keywords = arguments(case, {name: side.fork(tensor) for name, tensor in leaf.items()})
        with side.drawing(Tape(case.seed, "table", by_order=True), model):
            return [tensor for _, tensor in leaves(side, model(*positional, **keywords))]

    with side.hooked(model, calls.before, calls.after):
        outputs = run()
    _check_repeatable(side, case, outputs, run())
    roots = [(number, tensor) for number, tensor in enumerate(outputs) if side.has_history(tensor)]
    if roots:
        tensors = [tensor for _, tensor in roots]
        side.backward(tensors, [context.cotangent(number, tuple(tensor.shape)) for number, tensor in roots])
    gradients = side.gradients(model) if roots else {}
    rows = [_row(spec, gradients.get(spec.name), calls) for spec in specs]
    return sorted(rows, key=lambda row: calls.place(row["name"]))


class _Calls:
    """By module, in the order of their first calls, a sketch of what goes into it."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._fed: dict[str, list[float] | None] = {}

    def before(self, module: str, inputs: Any) -> None:
        if module not in self._fed:
            first = next((tensor for _, tensor in leaves(self._side, inputs)), None)
            self._fed[module] = None if first is None else _sketch(self._side.to_numpy(first))

    def after(self, module: str, outputs: Any) -> None:
        pass

    def fed(self, name: str) -> list[float] | None:
        return self._fed.get(name.rpartition(".")[0])

    def place(self, name: str) -> int:
        """Of the module that holds a tensor among all; last if it is never called."""
        module = name.rpartition(".")[0]
        return list(self._fed).index(module) if module in self._fed else len(self._fed)


def _row(spec: Spec, gradient: np.ndarray | None, calls: _Calls) -> dict[str, Any]:
    told = {"name": spec.name, "shape": list(spec.shape), "kind": spec.kind, "owner": spec.owner}
    parts = [] if gradient is None else [_sketch(part) for part in _projections(gradient)]
    prints = {"print": None if gradient is None else _sketch(gradient), "fed": calls.fed(spec.name)}
    return {**told, **prints, "parts": [part for part in parts if part]}


def _projections(array: np.ndarray) -> list[np.ndarray]:
    """The gradients of two or three projections that a weight may be made of, or of three that a bias may be of."""
    if array.ndim == 1 and array.size % 3 == 0:
        return np.split(array, 3)
    if array.ndim != 2 or array.shape[0] not in (2 * array.shape[1], 3 * array.shape[1]):
        return []
    return np.split(array, array.shape[0] // array.shape[1])


def _sketch(array: np.ndarray) -> list[float] | None:
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        return None
    return sketch(str(array.shape), array).tolist()


def _check_repeatable(side: Side, case: Case, outputs: list[Any], again: list[Any]) -> None:
    pairs = [(side.to_numpy(one), side.to_numpy(other)) for one, other in zip(outputs, again, strict=False)]
    same = len(outputs) == len(again) and all(
        a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs
    )
    if not same:
        raise UsageError(
            f"{case.builder(side.name)}: run twice on the same inputs it gives two results, although every random "
            f"function of {side.name} was answered alike. It draws elsewhere, or keeps state; nothing can be compared"
        )
