"""`loss`: each loss of the recipe and its gradient with respect to the logits, on the plan's logits."""

from collections.abc import Callable, Collection
from typing import Any

from align.record.context import Context
from align.record.subject import Subject

Loss = Callable[[Any, Any], Any]
LOGITS = ("logits", "logits_kd")


def criterion(context: Context, teacher: Callable[[Any], Any] | None = None) -> Callable[[Any, Any, Any], Any]:
    """The case's training criterion, `(inputs, outputs, targets) -> scalar`, made by the side's own package."""
    losses, recipe = context.package("losses"), context.case.criterion
    base = losses.LabelSmoothingCrossEntropy(smoothing=context.scalar(recipe.smoothing))
    return losses.DistillationLoss(
        base, teacher, recipe.distillation, context.scalar(recipe.alpha), context.scalar(recipe.tau)
    )


def table(context: Context) -> dict[str, Loss]:
    """Every loss by its name: `(logits, logits of the distillation head) -> scalar`, the rest from the plan."""
    losses, scalar = context.package("losses"), context.scalar
    names = ("target", "target_ignored", "soft_target", "teacher")
    target, ignored, soft, teacher = (context.tensor(f"loss/{name}") for name in names)
    smooth = losses.LabelSmoothingCrossEntropy(smoothing=scalar(0.1))

    def distilled(kind: str) -> Loss:
        loss = losses.DistillationLoss(smooth, lambda inputs: teacher, kind, scalar(0.3), scalar(3.0))
        return lambda logits, logits_kd: loss(None, logits if kind == "none" else (logits, logits_kd), target)

    return {
        "cross_entropy": lambda logits, _: losses.cross_entropy(logits, target),
        "cross_entropy_ignored": lambda logits, _: losses.cross_entropy(logits, ignored),
        "soft_target_cross_entropy": lambda logits, _: losses.SoftTargetCrossEntropy()(logits, soft),
        "label_smoothing": lambda logits, _: smooth(logits, target),
        **{f"distillation_{kind}": distilled(kind) for kind in ("none", "soft", "hard")},
    }


def subject(context: Context, name: str) -> Subject:
    """One loss as a model of its logits, so that the way back through it can be followed."""
    function = table(context)[name]
    logits = tuple(context.tensor(f"loss/{what}", gradient=True) for what in LOGITS)
    return Subject(context.side.as_model(lambda pair: function(*pair)), [logits], lambda value: value)


def backward_parts(bad: Collection[str]) -> tuple[str, ...]:
    """Of the wrong rows, the losses whose value is right all the same: only their way back is wrong."""
    return tuple(name for name in dict.fromkeys(row.partition("/")[0] for row in bad) if name not in bad)


def record(context: Context) -> None:
    for name, function in table(context).items():
        logits, logits_kd = (context.tensor(f"loss/{what}", gradient=True) for what in LOGITS)
        value = function(logits, logits_kd)
        context.side.backward([value])
        context.emit(name, value, "output", headline=True)
        context.emit(f"{name}/grad", context.side.gradient(logits), "gradient", headline=True)
        if name in ("distillation_soft", "distillation_hard"):
            context.emit(f"{name}/grad_kd", context.side.gradient(logits_kd), "gradient", headline=True)
