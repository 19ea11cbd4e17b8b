"""`bp_align`: forward, backward and update, taken apart, in training mode with every rate at 0.

The package's `train_step` is not called: what goes wrong inside its loop belongs to `train_align`.
"""

from contextlib import nullcontext
from functools import partial
from typing import Any

from align.record.context import Context
from align.record.subject import Subject
from align.steps.loss import criterion


def subject(context: Context) -> Subject:
    """The first iteration's forward and backward."""
    return _iteration(context, context.model(training=True), 0)


def _iteration(context: Context, model: Any, i: int) -> Subject:
    inputs = context.inputs(f"bp_align/{i}/input")
    teacher, target = context.tensor(f"bp_align/{i}/teacher"), context.tensor(f"bp_align/{i}/target")
    loss_of = criterion(context, partial(_given, teacher))
    return Subject(model, inputs, lambda outputs: loss_of(inputs[0], outputs, target))


def record(context: Context) -> None:
    side, case, optim = context.side, context.case, context.package("optim")
    model = context.model(training=True)
    optimizer = optim.build_optimizer(model, **context.scalars(case.optimizer))
    clip = None if case.clip_norm is None else context.scalar(case.clip_norm)
    for i in range(case.iterations):
        now = _iteration(context, model, i)
        assert now.loss
        with context.observing(model, gradients=True) if i == 0 else nullcontext():
            loss = now.loss(model(*now.inputs))
            side.backward([loss])
        context.emit(f"loss/{i}", loss, "output", headline=True)
        if i == 0:
            for name, gradient in side.gradients(model).items():
                context.emit(f"grad/{name}", gradient, "gradient", headline=True)
        norm = optim.update(optimizer, model, clip)
        if norm is not None:
            context.emit(f"grad_norm/{i}", norm, "statistic")
        side.clear_gradients(model)
        context.progress(i + 1, case.iterations)
    for name, (kind, array) in side.state(model).items():
        context.emit(f"param/{name}", array, kind, headline=True)


def _given(logits: Any, inputs: Any) -> Any:
    """A teacher whose answer is in the plan."""
    return logits
