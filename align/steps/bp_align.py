"""`bp_align`: forward, backward and update, taken apart, in training mode with every rate at 0.

The package's `train_step` is not called: what goes wrong inside its loop belongs to `train_align`.
"""

from align.record.context import Context
from align.steps.loss import criterion


def record(context: Context) -> None:
    side, case, optim = context.side, context.case, context.package("optim")
    model = context.model(training=True)
    optimizer = optim.build_optimizer(model, **context.scalars(case.optimizer))
    clip = None if case.clip_norm is None else context.scalar(case.clip_norm)
    for i in range(case.iterations):
        teacher = context.tensor(f"bp_align/{i}/teacher")
        inputs = context.inputs(f"bp_align/{i}/input")
        loss = criterion(context, lambda _, logits=teacher: logits)(
            inputs[0], model(*inputs), context.tensor(f"bp_align/{i}/target")
        )
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
