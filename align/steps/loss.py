"""`loss`: each loss of the recipe and its gradient with respect to the logits, on the plan's logits."""

from collections.abc import Callable
from typing import Any

from align.record.context import Context


def criterion(context: Context, teacher: Callable[[Any], Any] | None = None) -> Callable[[Any, Any, Any], Any]:
    """The case's training criterion, `(inputs, outputs, targets) -> scalar`, made by the side's own package."""
    losses, recipe = context.package("losses"), context.case.criterion
    base = losses.LabelSmoothingCrossEntropy(smoothing=context.scalar(recipe.smoothing))
    return losses.DistillationLoss(
        base, teacher, recipe.distillation, context.scalar(recipe.alpha), context.scalar(recipe.tau)
    )


def record(context: Context) -> None:
    losses, scalar = context.package("losses"), context.scalar
    names = ("target", "target_ignored", "soft_target", "teacher")
    target, ignored, soft, teacher = (context.tensor(f"loss/{name}") for name in names)
    smooth = losses.LabelSmoothingCrossEntropy(smoothing=scalar(0.1))

    def distilled(kind: str) -> Callable[[Any, Any], Any]:
        loss = losses.DistillationLoss(smooth, lambda inputs: teacher, kind, scalar(0.3), scalar(3.0))
        return lambda logits, logits_kd: loss(None, logits if kind == "none" else (logits, logits_kd), target)

    table: dict[str, Callable[[Any, Any], Any]] = {
        "cross_entropy": lambda logits, _: losses.cross_entropy(logits, target),
        "cross_entropy_ignored": lambda logits, _: losses.cross_entropy(logits, ignored),
        "soft_target_cross_entropy": lambda logits, _: losses.SoftTargetCrossEntropy()(logits, soft),
        "label_smoothing": lambda logits, _: smooth(logits, target),
        **{f"distillation_{kind}": distilled(kind) for kind in ("none", "soft", "hard")},
    }
    for name, function in table.items():
        logits = context.tensor("loss/logits", gradient=True)
        logits_kd = context.tensor("loss/logits_kd", gradient=True)
        value = function(logits, logits_kd)
        context.side.backward([value])
        context.emit(name, value, "output", headline=True)
        context.emit(f"{name}/grad", context.side.gradient(logits), "gradient", headline=True)
        if name in ("distillation_soft", "distillation_hard"):
            context.emit(f"{name}/grad_kd", context.side.gradient(logits_kd), "gradient", headline=True)
