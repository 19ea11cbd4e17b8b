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

    def run() -> list[Any]:
        positional, keywords = arguments(case, context.inputs())
        with side.drawing(Tape(case.seed, "table", by_order=True), model):
            return [tensor for _, tensor in leaves(side, model(*positional, **keywords))]

    outputs, again = run(), run()
    _check_repeatable(side, case, outputs, again)
    roots = [(number, tensor) for number, tensor in enumerate(outputs) if side.has_history(tensor)]
    if roots:
        tensors = [tensor for _, tensor in roots]
        side.backward(tensors, [context.cotangent(number, tuple(tensor.shape)) for number, tensor in roots])
    gradients = side.gradients(model) if roots else {}
    return [_row(spec, gradients.get(spec.name)) for spec in specs]


def _row(spec: Spec, gradient: np.ndarray | None) -> dict[str, Any]:
    told = {"name": spec.name, "shape": list(spec.shape), "kind": spec.kind, "owner": spec.owner, "print": None}
    if gradient is not None and np.isfinite(gradient).all():
        told["print"] = sketch(str(spec.shape), gradient).tolist()
    return told


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
