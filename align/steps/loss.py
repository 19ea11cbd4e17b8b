"""`loss`: each loss of the recipe and its gradient with respect to the logits, on the plan's logits."""

from collections.abc import Callable, Collection
from typing import Any

from align.record.context import Context
from align.record.subject import Subject

Loss = Callable[[Any, Any], Any]
LOGITS = ("logits", "logits_kd")
SQUARE = "square_"  # before the name of a loss on as many samples as classes


def criterion(context: Context, teacher: Callable[[Any], Any] | None = None) -> Callable[[Any, Any, Any], Any]:
    """The case's training criterion, `(inputs, outputs, targets) -> scalar`, made by the side's own package."""
    losses, recipe = context.package("losses"), context.case.criterion
    base = losses.LabelSmoothingCrossEntropy(smoothing=context.scalar(recipe.smoothing))
    return losses.DistillationLoss(
        base, teacher, recipe.distillation, context.scalar(recipe.alpha), context.scalar(recipe.tau)
    )


def table(context: Context) -> dict[str, Loss]:
    """Every loss by its name: `(logits, logits of the distillation head) -> scalar`, the rest from the plan."""
    losses, ignored = context.package("losses"), context.tensor("loss/target_ignored")
    return {
        **_losses(context, ""),
        "cross_entropy_ignored": lambda logits, _: losses.cross_entropy(logits, ignored),
        **{SQUARE + name: loss for name, loss in _losses(context, "square/").items()},
    }


def _losses(context: Context, part: str) -> dict[str, Loss]:
    """Those on one part of the plan."""
    losses, scalar = context.package("losses"), context.scalar
    target, soft, teacher = (context.tensor(f"loss/{part}{name}") for name in ("target", "soft_target", "teacher"))
    smooth = losses.LabelSmoothingCrossEntropy(smoothing=scalar(0.1))

    def distilled(kind: str) -> Loss:
        loss = losses.DistillationLoss(smooth, lambda inputs: teacher, kind, scalar(0.3), scalar(3.0))
        return lambda logits, logits_kd: loss(None, logits if kind == "none" else (logits, logits_kd), target)

    return {
        "cross_entropy": lambda logits, _: losses.cross_entropy(logits, target),
        "soft_target_cross_entropy": lambda logits, _: losses.SoftTargetCrossEntropy()(logits, soft),
        "label_smoothing": lambda logits, _: smooth(logits, target),
        **{f"distillation_{kind}": distilled(kind) for kind in ("none", "soft", "hard")},
    }


def _logits(context: Context, name: str) -> tuple[Any, ...]:
    """The leaves that a loss is worked out from."""
    part = "square/" if name.startswith(SQUARE) else ""
    return tuple(context.tensor(f"loss/{part}{what}", gradient=True) for what in LOGITS)


def subject(context: Context, name: str) -> Subject:
    """One loss as a model of its logits, so that the way back through it can be followed."""
    function = table(context)[name]
    return Subject(context.side.as_model(lambda pair: function(*pair)), [_logits(context, name)], lambda value: value)


def backward_parts(bad: Collection[str]) -> tuple[str, ...]:
    """Of the wrong rows, the losses whose value is right all the same: only their way back is wrong."""
    return tuple(name for name in dict.fromkeys(row.partition("/")[0] for row in bad) if name not in bad)


def record(context: Context) -> None:
    for name, function in table(context).items():
        logits, logits_kd = _logits(context, name)
        headline = not name.startswith(SQUARE)
        value = function(logits, logits_kd)
        context.side.backward([value])
        context.emit(name, value, "output", headline=headline)
        context.emit(f"{name}/grad", context.side.gradient(logits), "gradient", headline=headline)
        if name.endswith(("distillation_soft", "distillation_hard")):
            context.emit(f"{name}/grad_kd", context.side.gradient(logits_kd), "gradient", headline=headline)
