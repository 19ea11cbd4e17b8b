"""`train_align`: a small model trained for real by the package's own loop, from the same weights and batch order.

Before that, dropout and drop-path at work: `align.steps.rates_on`. After it, what the reference reaches from other
weights and in other orders: the spread that its final accuracy, and the port's, are to be read beside.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from align.plan import weights
from align.record.context import Context
from align.record.sketch import PREFIX, sketch
from align.record.subject import Subject
from align.steps import rates_on
from align.steps.recipe import classification, optimizer_and_schedule, recipe_of, training_model

OTHER_SEEDS = 3  # runs of the reference beside the one that is compared: enough for a range, and 3 s each
OnIteration = Callable[[int, Mapping[str, float]], None]


def subject(context: Context) -> Subject:
    """Of the first part; nothing else of this step runs a model without an optimizer."""
    return rates_on.subject(context)


def traced(context: Context) -> None:
    """What stands for the step where its source lines are traced: the loop's few updates hold all that it does."""
    rates_on.updates(context)


def is_early(row: str) -> bool:
    """Whether a row is one of the first part's."""
    return row.partition("/")[0] in rates_on.ROWS


def record_early(context: Context) -> None:
    """The first part alone: a few updates instead of a hundred."""
    if context.case.rates:
        rates_on.record(context)


def record(context: Context) -> None:
    side, recipe = context.side, recipe_of(context)
    record_early(context)
    model = training_model(context)
    names = ("loss", "lr", "grad_norm") if recipe.clip_norm else ("loss", "lr")
    curves: dict[str, list[float]] = {name: [] for name in names}
    trajectory: dict[str, list[np.ndarray]] = {}

    def on_iteration(iteration: int, record: Mapping[str, float]) -> None:
        for name, values in curves.items():
            values.append(record[name])
        for name, (_, array) in side.state(model).items():
            trajectory.setdefault(name, []).append(sketch(name, array))
        context.progress(iteration + 1, recipe.iterations)

    accuracy = _final_accuracy(context, model, context.array("train_align/order"), on_iteration)
    for name, values in curves.items():
        context.emit(name, np.array(values), "curve", headline=name in ("loss", "lr"))
    for name, sketches in trajectory.items():
        context.emit(f"{PREFIX}{name}", np.array(sketches), "curve")
    # In the working type alone: how rounding spreads a run is the noise's matter.
    alone = side.name == "torch" and not context.perturbed and context.dtype != "float64"
    facts = {"other_seeds": _other_seeds(context)} if alone else None
    context.emit("acc_test", np.float64(accuracy), "metric", headline=True, facts=facts)
    for name, (kind, array) in side.state(model).items():
        context.emit(f"param/{name}", array, kind, headline=True)


def _final_accuracy(context: Context, model: Any, order: np.ndarray, on_iteration: OnIteration | None = None) -> float:
    """Train the model by the package's `fit` on batches of these indices (batches, batch); its top-1 afterwards."""
    side, recipe, train = context.side, recipe_of(context), context.package("train")
    images, labels = (context.array(f"train_align/train/{what}") for what in ("images", "labels"))
    test_images, test_labels = (context.array(f"train_align/test/{what}") for what in ("images", "labels"))
    optimizer, schedule = optimizer_and_schedule(context, model)
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
    return float(train.evaluate(model, [tuple(map(side.from_numpy, batch)) for batch in batches])["acc1"])


def _other_seeds(context: Context) -> list[float]:
    """The final accuracy of the same run from other initial weights and in another order of all that it sees."""
    order, found = context.array("train_align/order"), []
    for number in range(OTHER_SEEDS):
        seed = context.case.seed + 1 + number
        model = training_model(context)
        context.side.load(model, weights.initial(context.side.specs(model), seed))
        shuffled = np.random.default_rng(seed).permutation(order.reshape(-1)).reshape(order.shape)
        found.append(_final_accuracy(context, model, shuffled))
    return found
