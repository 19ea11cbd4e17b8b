"""`train_align`: a small model trained for real by the package's own loop, from the same weights and batch order.

Before that, dropout and drop-path at work: `align.steps.rates_on`.
"""

from typing import Any

import numpy as np

from align.record.context import Context
from align.record.sketch import PREFIX, sketch
from align.record.subject import Subject
from align.steps import rates_on
from align.steps.recipe import classification, optimizer_and_schedule, recipe_of, training_model


def subject(context: Context) -> Subject:
    """Of the first part; nothing else of this step runs a model without an optimizer."""
    return rates_on.subject(context)


def traced(context: Context) -> None:
    """What stands for the step where its source lines are traced: the loop's few updates hold all that it does."""
    rates_on.updates(context)


def record(context: Context) -> None:
    side, recipe = context.side, recipe_of(context)
    if context.case.rates:
        rates_on.record(context)
    images, labels = (context.array(f"train_align/train/{what}") for what in ("images", "labels"))
    test_images, test_labels = (context.array(f"train_align/test/{what}") for what in ("images", "labels"))
    order = context.array("train_align/order")
    train, model = context.package("train"), training_model(context)
    optimizer, schedule = optimizer_and_schedule(context, model)
    names = ("loss", "lr", "grad_norm") if recipe.clip_norm else ("loss", "lr")
    curves: dict[str, list[float]] = {name: [] for name in names}
    trajectory: dict[str, list[np.ndarray]] = {}

    def on_iteration(iteration: int, record: dict[str, float]) -> None:
        for name, values in curves.items():
            values.append(record[name])
        for name, (_, array) in side.state(model).items():
            trajectory.setdefault(name, []).append(sketch(name, array))
        context.progress(iteration + 1, recipe.iterations)

    train.fit(
        model,
        ((side.from_numpy(images[rows]), side.from_numpy(labels[rows])) for rows in order),
        classification(context),
        optimizer,
        schedule,
        clip_norm=None if recipe.clip_norm is None else context.scalar(recipe.clip_norm),
        accumulation=recipe.accumulation,
        on_iteration=on_iteration,
    )
    batches = [(test_images[i : i + 100], test_labels[i : i + 100]) for i in range(0, len(test_labels), 100)]
    result: dict[str, Any] = train.evaluate(model, [tuple(map(side.from_numpy, batch)) for batch in batches])
    for name, values in curves.items():
        context.emit(name, np.array(values), "curve", headline=name in ("loss", "lr"))
    for name, sketches in trajectory.items():
        context.emit(f"{PREFIX}{name}", np.array(sketches), "curve")
    context.emit("acc_test", np.float64(result["acc1"]), "metric", headline=True)
    for name, (kind, array) in side.state(model).items():
        context.emit(f"param/{name}", array, kind, headline=True)
