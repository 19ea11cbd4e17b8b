"""The training recipe of a case, built by the side's own package: model, optimizer, schedule and criterion."""

from collections.abc import Callable, Mapping
from typing import Any

from align.case import Training
from align.errors import UsageError
from align.record.builders import resolve
from align.record.context import Context


def recipe_of(context: Context) -> Training:
    if context.case.training is None:
        raise UsageError(f"case {context.case.name}: has no training recipe; leave out step train_align")
    return context.case.training


def training_model(context: Context, changes: Mapping[str, Any] | None = None) -> Any:
    """The small model that is trained, with the plan's weights; `changes` go over the case's arguments."""
    recipe, side = recipe_of(context), context.side
    builder = resolve(recipe.reference if side.name == "torch" else recipe.port)
    model = side.build(builder, {**recipe.build, **(changes or {})})
    side.load(model, context.arrays("train_align/weights/"))
    return model


def optimizer_and_schedule(context: Context, model: Any) -> tuple[Any, Any]:
    recipe, optim = recipe_of(context), context.package("optim")
    optimizer = optim.build_optimizer(model, **context.scalars(recipe.optimizer))
    schedule = optim.build_schedule(
        optimizer,
        lr=context.scalar(recipe.optimizer["lr"]),
        iterations=recipe.iterations,
        warmup_iterations=recipe.warmup_iterations,
        warmup_lr=context.scalar(recipe.warmup_lr),
        min_lr=context.scalar(recipe.min_lr),
    )
    return optimizer, schedule


def classification(context: Context) -> Callable[[Any, Any, Any], Any]:
    """`(images, outputs, targets) -> loss`: label smoothing, the mean over the heads of a distilled model."""
    smooth = context.package("losses").LabelSmoothingCrossEntropy(
        smoothing=context.scalar(context.case.criterion.smoothing)
    )

    def criterion(_: Any, outputs: Any, target: Any) -> Any:
        heads = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(smooth(head, target) for head in heads) / len(heads)

    return criterion
