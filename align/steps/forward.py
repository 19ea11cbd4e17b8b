"""`forward`: features, logits and every module's activations in evaluation, and outputs in training mode, rates 0."""

from align.record.context import Context
from align.record.subject import Subject


def subject(context: Context) -> Subject:
    return Subject(context.model(), context.inputs(), reference_names=context.reference_names)


def training_subject(context: Context) -> Subject:
    return Subject(context.model(training=True), context.inputs(), reference_names=context.reference_names)


def record(context: Context) -> None:
    model, inputs = context.model(), context.inputs()
    with context.side.no_gradient():
        context.emit("features", model.forward_features(*inputs), "output", headline=True)
        with context.observing(model):
            logits = model(*inputs)
        context.emit("logits", logits, "output", headline=True)
        context.side.set_training(model, True)
        context.emit("training", model(*inputs), "output")
