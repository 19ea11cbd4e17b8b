"""`bp_align`: forward, backward and update, taken apart, in training mode with every rate at 0.

The package's `train_step` is not called: what goes wrong inside its loop belongs to `train_align`.
"""

from contextlib import nullcontext
from functools import partial
from typing import Any

from align.record.context import Context, arguments
from align.record.subject import Subject
from align.steps import cotangents
from align.steps.loss import criterion


def subject(context: Context) -> Subject:
    """The first iteration's forward and backward."""
    if context.case.alone:
        return cotangents.subject(context)
    return iteration(context, context.model(training=True), 0)


def evaluation_subject(context: Context) -> Subject:
    """Of models that stand alone, which are compared in both modes."""
    return cotangents.evaluation_subject(context)


def iteration(context: Context, model: Any, i: int, samples: slice = slice(None)) -> Subject:
    """The i-th batch of the plan, or some of its samples, through the model, with the case's loss."""

    def tensor(name: str) -> Any:
        return context.side.from_numpy(context.array(f"bp_align/{i}/{name}")[samples])

    inputs = {spec.name: tensor(f"input/{spec.name}") for spec in context.case.inputs}
    positional, keywords = arguments(context.case, inputs)
    teacher, target = tensor("teacher"), tensor("target")
    loss_of, first = criterion(context, partial(_given, teacher)), next(iter(inputs.values()))
    return Subject(
        model, positional, lambda outputs: loss_of(first, outputs, target), context.naming, keywords=keywords
    )


def record(context: Context) -> None:
    if context.case.alone:
        cotangents.record(context)
    else:
        _train(context)


def _train(context: Context) -> None:
    side, case, optim = context.side, context.case, context.package("optim")
    model = context.model(training=True)
    optimizer = optim.build_optimizer(model, **context.scalars(case.optimizer))
    clip = None if case.clip_norm is None else context.scalar(case.clip_norm)
    for i in range(case.iterations):
        now = iteration(context, model, i)
        assert now.loss
        with context.observing(model, gradients=True) if i == 0 else nullcontext():
            loss = now.loss(now.run())
            side.backward([loss])
        context.emit(f"loss/{i}", loss, "output", headline=True)
        if i == 0:
            for name, gradient in context.naming.to_reference(side.gradients(model)).items():
                context.emit(f"grad/{name}", gradient, "gradient", headline=True)
        norm = optim.update(optimizer, model, clip)
        if norm is not None:
            context.emit(f"grad_norm/{i}", norm, "statistic")
        side.clear_gradients(model)
        context.progress(i + 1, case.iterations)
    for name, (kind, array) in side.state(model).items():
        context.emit(f"param/{context.reference_names.get(name, name)}", array, kind, headline=True)
    _accumulated(context)


def _accumulated(context: Context) -> None:
    """Two backward passes in a row, of two micro-batches, and nothing cleared between: the gradients add up."""
    side, model = context.side, context.model(training=True)
    for samples in (slice(None, 2), slice(-2, None)):
        now = iteration(context, model, 0, samples)
        assert now.loss
        side.backward([now.loss(now.run())])
    for name, gradient in context.naming.to_reference(side.gradients(model)).items():
        context.emit(f"accumulated/grad/{name}", gradient, "gradient")


def _given(logits: Any, inputs: Any) -> Any:
    """A teacher whose answer is in the plan."""
    return logits
