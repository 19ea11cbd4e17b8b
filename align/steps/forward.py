"""`forward`: outputs and every module's activations in evaluation, and outputs in training mode.

Of a case with a recipe, training mode has its rates at 0. Of models that stand alone, draws are answered by a tape, and
what a training pass adds to buffers, and outputs for inputs far from zero, are compared too.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from align.errors import UsageError
from align.probing import listening
from align.record.context import Context, arguments
from align.record.observer import leaves
from align.record.settings import held
from align.record.subject import Subject

BUILT = "built/"
ROUNDED = 2.0**-18  # of a table's greatest element: some roundings in float32
FAR = 8.0  # a power of two, so that nothing rounds
DRAWN = ("photographs", "normal")


def subject(context: Context) -> Subject:
    return _subject(context, context.model(), "evaluation")


def training_subject(context: Context) -> Subject:
    return _subject(context, context.model(training=True), "training")


def far_subject(context: Context) -> Subject:
    return _subject(context, context.model(), "far")


def _subject(context: Context, model: Any, mode: str) -> Subject:
    inputs = context.inputs()
    if mode == "far":
        fills = {spec.name: spec.fill for spec in context.case.inputs}
        inputs = {name: tensor * FAR if fills[name] in DRAWN else tensor for name, tensor in inputs.items()}
    positional, keywords = arguments(context.case, inputs)
    drawn = {"randomness": partial(context.randomness, f"forward/{mode}", model)} if context.case.alone else {}
    return Subject(model, positional, naming=context.naming, keywords=keywords, **drawn)


def record(context: Context) -> None:
    side, case, now = context.side, context.case, subject(context)
    before = side.state(now.model) if case.alone else {}
    with side.no_gradient():
        if case.features:
            features = getattr(now.model, case.features)(*now.inputs, **now.keywords)
            context.emit("features", features, "output", headline=True)
        with now.randomness(), context.observing(now.model), _probing(context) as probed:
            outputs = now.run()
        _emit_outputs(context, "output" if case.alone else "logits", outputs, headline=True)
        for name, value in probed.items():
            context.emit(f"probed/{name}", value, "output", headline=True)
        if case.alone:
            _emit_far(context, now.model)
        side.set_training(now.model, True)
        trained = _subject(context, now.model, "training")
        drawing = context.randomness("forward/training", now.model, counted="draws/training")
        with drawing if case.alone else nullcontext() as tape, _counting(context, now.model) as counts:
            outputs = trained.run()
        if tape:
            context.emit_draws(tape)
        _emit_outputs(context, "training", outputs)
    if case.alone:
        _emit_state(context, before, side.state(now.model), counts, side.modules(now.model))
        _emit_built(context, now.model)


def _emit_far(context: Context, model: Any) -> None:
    """Outputs for inputs far from zero, `far/...`: where activations are cut off, a ReLU6 is no ReLU.

    Left out where the reference cannot take them.
    """
    if not any(spec.fill in DRAWN for spec in context.case.inputs):
        return
    if context.side.name != "torch" and not any(row.startswith("far/") for row in context.recorded("forward").entries):
        return
    far = _subject(context, model, "far")
    try:
        with far.randomness():
            outputs = far.run()
    except Exception:
        if context.side.name == "torch":
            return
        raise
    _emit_outputs(context, "far/output", outputs)


def _emit_outputs(context: Context, name: str, outputs: Any, *, headline: bool = False) -> None:
    found = list(leaves(context.side, outputs))
    if not found:
        raise UsageError(
            f"case {context.case.name}, {context.side.name} side: the model gives {type(outputs).__name__} without a "
            "tensor; wrap it so that it gives tensors, or tuples, lists or dictionaries of them"
        )
    for path, tensor in found:
        context.emit(f"{name}{path}", tensor, "output", headline=headline)


@contextmanager
def _probing(context: Context) -> Iterator[dict[str, Any]]:
    """The first value of every probe that the case names. One that the reference does not meet is an error in the case.

    Of the port it is a result that is missing.
    """
    case, met = context.case, dict[str, Any]()

    def probed(name: str, tensor: Any) -> None:
        met.setdefault(name, context.side.to_numpy(tensor) if name in case.probes else None)

    with listening(probed):
        yield met
    lacking = [name for name in case.probes if name not in met]
    if lacking and context.side.name == "torch":
        there = ", ".join(met) or "none"
        raise UsageError(f"case {case.name}: the reference has no align.probe({lacking[0]!r}, ...); it has: {there}")
    for name in met.keys() - set(case.probes):
        del met[name]


@contextmanager
def _counting(context: Context, model: Any) -> Iterator[dict[str, int]]:
    """By module, how many values of each channel (axis 1) went into its last call."""
    counts: dict[str, int] = {}

    def before(module: str, inputs: Any) -> None:
        shape = next((tuple(tensor.shape) for _, tensor in leaves(context.side, inputs)), ())
        if len(shape) > 1 and shape[1]:
            counts[module] = math.prod(shape) // shape[1]

    with context.side.hooked(model, before, lambda *_: None):
        yield counts


def _emit_built(context: Context, model: Any) -> None:
    """`built/<buffer>`: what the user's modules keep in saved buffers as their constructors make it.

    Loading hides it. What two seeds make differently is drawn, and left out. A float table that is as good as the
    reference's is told as that: its own rounding, of another library's sine, is no difference.
    """
    names = _saved_buffers(context, model)
    if not names:
        return
    first, second = (context.side.state(context.built(seed)) for seed in (0, 1))
    for own, name in names.items():
        (_, array), (_, again) = first[own], second[own]
        if context.side.name == "torch":
            if np.array_equal(array, again, equal_nan=array.dtype.kind == "f"):
                context.emit(f"{BUILT}{name}", array, "buffer")
        elif f"{BUILT}{name}" in (recorded := context.recorded("forward")):
            expected = recorded[f"{BUILT}{name}"]
            context.emit(f"{BUILT}{name}", expected if _as_good(array, expected) else array, "buffer")


def _saved_buffers(context: Context, model: Any) -> dict[str, str]:
    """Reference's names by a side's own, of what the reference's modules keep: the port may keep it as a parameter."""
    names = context.reference_names
    if context.side.name != "torch":
        recorded = context.recorded("forward")
        return {own: name for own in context.side.state(model) if f"{BUILT}{(name := names.get(own, own))}" in recorded}
    modules = held(context.side, context.side.modules(model))
    kinds = {name: kind for name, (kind, _) in context.side.state(model).items()}
    users = (f"{path}.{name}".lstrip(".") for path, tensors in modules.items() for name in tensors)
    return {name: name for name in users if kinds.get(name) == "buffer"}


def _as_good(array: np.ndarray, expected: np.ndarray) -> bool:
    if array.dtype.kind != "f" or array.shape != expected.shape or not array.size:
        return False
    return bool(np.allclose(array, expected, rtol=0, atol=ROUNDED * float(np.abs(expected).max()), equal_nan=True))


def _emit_state(
    context: Context,
    before: dict[str, tuple[str, np.ndarray]],
    after: dict[str, tuple[str, np.ndarray]],
    counts: dict[str, int],
    modules: dict[str, Any],
) -> None:
    """Every parameter and buffer as loaded, and what the training pass has added to each buffer.

    A framework may estimate a variance otherwise from the same values: their number stands with the row.
    """
    kinds = {context.reference_names.get(name, name): kind for name, (kind, _) in before.items()}
    held = context.naming.to_reference({name: array for name, (_, array) in before.items()})
    for name, array in held.items():
        context.emit(f"param/{name}", array, kinds.get(name, "parameter"))
    buffers = [name for name, (kind, _) in before.items() if kind == "buffer"]
    for name in buffers:
        change = after[name][1] - before[name][1] if before[name][1].dtype.kind != "b" else after[name][1]
        owner = name.rpartition(".")[0]
        count = counts.get(owner)
        named = context.reference_names.get(name, name)
        facts = {"count": count, "momentum": getattr(modules.get(owner), "momentum", None)}
        context.emit(f"update/{named}", change, "buffer", facts={k: v for k, v in facts.items() if v is not None})
