"""`forward`: features and logits in evaluation, and the outputs in training mode with every rate at 0."""

from align.record.context import Context


def record(context: Context) -> None:
    model, inputs = context.model(), context.inputs()
    with context.side.no_gradient():
        context.emit("features", model.forward_features(*inputs), "output", headline=True)
        context.emit("logits", model(*inputs), "output", headline=True)
        context.side.set_training(model, True)
        context.emit("training", model(*inputs), "output")
