"""`train_align`: a small model trained for real by the package's own loop, from the same weights and batch order."""

from typing import Any

import numpy as np

from align.errors import UsageError
from align.record.context import Context, resolve


def record(context: Context) -> None:
    side, case, recipe = context.side, context.case, context.case.training
    if recipe is None:
        raise UsageError(f"case {case.name}: has no training recipe; leave out step train_align")
    train, optim, losses = (context.package(module) for module in ("train", "optim", "losses"))
    images, labels = (context.array(f"train_align/train/{what}") for what in ("images", "labels"))
    test_images, test_labels = (context.array(f"train_align/test/{what}") for what in ("images", "labels"))
    order = context.array("train_align/order")

    model = side.build(resolve(recipe.reference if side.name == "torch" else recipe.port), recipe.build)
    side.load(model, context.arrays("train_align/weights/"))
    optimizer = optim.build_optimizer(model, **context.scalars(recipe.optimizer))
    schedule = optim.build_schedule(
        optimizer,
        lr=context.scalar(recipe.optimizer["lr"]),
        iterations=recipe.iterations,
        warmup_iterations=recipe.warmup_iterations,
        warmup_lr=context.scalar(recipe.warmup_lr),
        min_lr=context.scalar(recipe.min_lr),
    )
    smooth = losses.LabelSmoothingCrossEntropy(smoothing=context.scalar(case.loss.smoothing))
    curves: dict[str, list[float]] = {"loss": [], "lr": []}

    def criterion(_: Any, outputs: Any, target: Any) -> Any:
        heads = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(smooth(head, target) for head in heads) / len(heads)

    def on_iteration(iteration: int, record: dict[str, float]) -> None:
        for name, values in curves.items():
            values.append(record[name])
        context.progress(iteration + 1, recipe.iterations)

    train.fit(
        model,
        ((side.from_numpy(images[rows]), side.from_numpy(labels[rows])) for rows in order),
        criterion,
        optimizer,
        schedule,
        clip_norm=None if recipe.clip_norm is None else context.scalar(recipe.clip_norm),
        accumulation=recipe.accumulation,
        on_iteration=on_iteration,
    )
    batches = [(test_images[i : i + 100], test_labels[i : i + 100]) for i in range(0, len(test_labels), 100)]
    result = train.evaluate(model, [tuple(map(side.from_numpy, batch)) for batch in batches])
    for name, values in curves.items():
        context.emit(name, np.array(values), "curve", headline=True)
    context.emit("acc_test", np.float64(result["acc1"]), "metric", headline=True)
    for name, (kind, array) in side.state(model).items():
        context.emit(f"param/{name}", array, kind, headline=True)
