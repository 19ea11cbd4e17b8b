"""`bp_align` of models that stand alone: backward from fixed cotangents, in evaluation and in training mode.

A sum of the outputs would send back ones, which a permuted or normalised output does not feel. Here every output has
standard-normal numbers of its own.
"""

from functools import partial
from typing import Any

from align.errors import UsageError
from align.record.context import Context, arguments
from align.record.observer import leaves
from align.record.subject import Subject


def subject(context: Context) -> Subject:
    return _subject(context, context.inputs(gradient=True), training=True)


def evaluation_subject(context: Context) -> Subject:
    return _subject(context, context.inputs(gradient=True), training=False)


def _subject(context: Context, inputs: dict[str, Any], *, training: bool) -> Subject:
    model = context.model(training=training)
    # A leaf may not be written to, which a model's first module may do in place.
    forked = {name: context.side.fork(tensor) for name, tensor in inputs.items()}
    positional, keywords = arguments(context.case, forked)
    randomness = partial(context.randomness, f"bp_align/{_mode(training)}", model)
    return Subject(model, positional, partial(_product, context), context.naming, randomness, keywords)


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def _product(context: Context, outputs: Any) -> Any:
    """The sum of outputs times cotangents: its gradient at each output is the cotangent, exactly.

    The sum of absolute values goes in without a gradient, so that the number is far from a cancellation.
    """
    side, total = context.side, None
    for number, (_, tensor) in enumerate(leaves(side, outputs)):
        if not side.has_history(tensor):
            continue
        products = tensor * context.cotangent(number, tuple(tensor.shape))
        term = products.sum() + products.detach().abs().sum()
        total = term if total is None else total + term
    if total is None:
        raise UsageError(
            f"case {context.case.name}, {side.name} side: no output has a gradient: no parameter and no floating input "
            "leads to one. Give the step forward alone (`align check --step forward`)"
        )
    return total


def record(context: Context) -> None:
    """`grad/<parameter>` and `input_grad/<input>` in training mode; the same under `evaluation/` in evaluation."""
    for prefix, training in (("evaluation/", False), ("", True)):
        _record(context, prefix, training)


def _record(context: Context, prefix: str, training: bool) -> None:
    side, inputs = context.side, context.inputs(gradient=True)
    now = _subject(context, inputs, training=training)
    assert now.loss
    mode = _mode(training)
    with context.randomness(f"bp_align/{mode}", now.model, counted=f"draws/{mode}"):
        if training:
            with context.observing(now.model, gradients=True):
                loss = now.loss(now.run())
                side.backward([loss])
        else:
            side.backward([now.loss(now.run())])
    for name, gradient in context.naming.to_reference(side.gradients(now.model)).items():
        context.emit(f"{prefix}grad/{name}", gradient, "gradient", headline=training)
    for name, tensor in inputs.items():
        if side.has_history(tensor):
            context.emit(f"{prefix}input_grad/{name}", side.gradient(tensor), "gradient")
