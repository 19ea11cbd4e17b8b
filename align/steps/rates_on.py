"""The first part of `train_align`: dropout and drop-path at work, every draw answered by a tape.

Not a step of its own. One pass of the case's model forwards and backwards; a few updates of the small model through the
package's `fit`, with its `evaluate` between, where nothing may be drawn; and each module that drops, alone, with its
framework's own generator.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from align.errors import UsageError
from align.record.context import Context
from align.record.masks import dropping
from align.record.randomness import Tape
from align.record.sketch import sketch
from align.record.subject import Subject
from align.steps.bp_align import iteration
from align.steps.recipe import classification, optimizer_and_schedule, recipe_of, training_model

ROWS = ("draw", "draws", "random", "natural", "loop")  # what the names of its rows begin with
RANDOM = "train_align/random"
ACCUMULATION = 2
# Micro-batches through `fit`, before an evaluation and after it. The first do not come out even: their last update is
# of one alone.
FITTED = (2 * ACCUMULATION + 1, ACCUMULATION)
UPDATES = (ACCUMULATION, ACCUMULATION, 1, ACCUMULATION)  # micro-batches of each update
# Images of 16 levels are exact in any type; dimmed they have all digits of float32. In float64 the product is exact.
DIMMED = float(np.float32(0.9))
CLIP_NORM = 0.5  # of the gradient; active in every update
DECAY = 0.75  # of the moving average: it follows within a few updates


def subject(context: Context) -> Subject:
    """The pass forwards and backwards, with its tape."""
    model = context.model(training=True, changes=context.case.rates)
    return replace(iteration(context, model, 0), randomness=partial(context.randomness, RANDOM, model))


def record(context: Context) -> None:
    tape, model = _one_pass(context)
    if not context.perturbed:
        _own_generator(context, model, tape)
    updates(context)


def _one_pass(context: Context) -> tuple[Tape, Any]:
    side, now = context.side, subject(context)
    assert now.loss
    with context.randomness(RANDOM, now.model, counted="draws/random") as tape:
        loss = now.loss(now.run())
        side.backward([loss])
    context.emit_draws(tape)
    context.emit("random/loss", loss, "output")
    for name, gradient in now.naming.to_reference(side.gradients(now.model)).items():
        context.emit(f"random/grad/{name}", gradient, "gradient")
    return tape, now.model


def _own_generator(context: Context, model: Any, tape: Tape) -> None:
    """Each module that only drops: it must fit its rate without the tape, too."""
    side, modules = context.side, context.side.modules(model)
    masks = {draw.module.partition("#")[0]: draw for draw in tape.log if draw.kind in ("mask", "uniform")}
    for name, draw in masks.items():
        module = modules.get(name)
        if module is None or len(side.modules(module)) > 1 or side.tensors(module):
            continue  # what draws among other things has no rate of its own

        def run(ones: np.ndarray, module: Any = module) -> np.ndarray:
            with side.own_randomness(context.case.seed), side.no_gradient():
                return side.to_numpy(module(side.from_numpy(ones)))

        keep = draw.settings.get("keep")
        found = dropping(run, len(draw.shape), keep)
        if side.name == "torch" and keep and not found.rate:
            raise UsageError(f"{name}: the reference does not keep {keep:g} of what it is given")
        context.emit(f"natural/{name}/rate", np.int64(found.rate), "statistic")
        context.emit(f"natural/{name}/scale", np.int64(found.scale), "statistic")
        context.emit(f"natural/{name}/varies", np.array(found.varies, np.int64), "statistic")


def updates(context: Context) -> None:
    """The loop's own part: modes, accumulation, clipping, clearing, the moving average."""
    if context.case.training is None:
        return
    side, train = context.side, context.package("train")
    model, batches, losses = training_model(context, context.case.rates), _batches(context), []
    paths: dict[str, list[np.ndarray]] = {"param": [], "ema": []}  # after each update
    parts: list[float] = []  # what the criterion gave, micro-batch by micro-batch
    numbers: list[int] = []  # of the iterations, as they are told
    rates: list[float] = []  # likewise
    criterion = classification(context)

    def measured(*arguments: Any) -> Any:
        loss = criterion(*arguments)
        parts.append(float(side.to_numpy(loss)))
        return loss

    def on_iteration(number: int, told: Mapping[str, float]) -> None:
        numbers.append(number)
        losses.append(told["loss"])
        rates.append(told["lr"])
        for what, of in (("param", model), ("ema", ema.module)):
            paths[what].append(np.concatenate([sketch(name, array) for name, (_, array) in side.state(of).items()]))

    optimizer, schedule = optimizer_and_schedule(context, model)
    ema = context.package("ema").build_ema(model, decay=DECAY)

    def fit(some: list[Any], scope: str) -> None:
        with context.randomness(f"train_align/{scope}", model, counted=f"draws/{scope}"):
            train.fit(
                model,
                some,
                measured,
                optimizer,
                schedule,
                clip_norm=context.scalar(CLIP_NORM),
                accumulation=ACCUMULATION,
                ema=ema,
                on_iteration=on_iteration,
            )

    side.set_training(model, False)  # `fit` trains in training mode, whatever it finds
    with context.watching(model, schedule=(schedule, "step"), average=(ema, "update")):
        fit(batches[: FITTED[0]], "updates")
        with context.randomness("train_align/evaluation", model) as silent:
            evaluated = train.evaluate(model, batches[:1])
        counts = {
            "modules_in_training": sum(module.training for module in side.modules(model).values()),
            "average_in_evaluation": sum(not module.training for module in side.modules(ema.module).values()),
        }
        fit(batches[FITTED[0] :], "last")
    before, after = context.arrays("train_align/weights/"), side.state(model)
    counts |= {
        "evaluation_draws_nothing": not silent.log,
        "moved": sum(_moved(before[name], array) for name, (_, array) in after.items()),
        "gradients_cleared": sum(gradient is None for gradient in side.gradients(model).values()),
        "refuses_vector_loss": _refuses(train, model, batches[0], optimizer),
    }
    for name, count in counts.items():
        context.emit(f"loop/{name}", np.int64(count), "statistic")
    context.emit("loop/iterations", np.array(numbers, np.int64), "statistic")
    context.emit("loop/loss", np.array(losses), "curve")
    context.emit("loop/lr", np.array(rates), "curve")
    context.emit("loop/micro_loss", np.array(parts), "curve")
    for what, path in paths.items():
        context.emit(f"loop/path/{what}", np.array(path), "curve")
    context.emit("loop/evaluated_loss", np.float64(evaluated["loss"]), "curve")
    for what, state in (("param", after), ("ema", side.state(ema.module))):
        for name, (kind, array) in state.items():
            context.emit(f"loop/{what}/{name}", array, kind)


def _batches(context: Context) -> list[tuple[Any, Any]]:
    """(images, labels) of every micro-batch, in the plan's order."""
    images, labels = (context.array(f"train_align/train/{what}") for what in ("images", "labels"))
    order = np.resize(context.array("train_align/order"), (sum(FITTED), recipe_of(context).batch))
    images = DIMMED * images.astype(np.float64)
    return [(context.side.from_numpy(images[rows]), context.side.from_numpy(labels[rows])) for rows in order]


def _moved(before: np.ndarray, after: np.ndarray) -> bool:
    return not np.array_equal(before.astype(after.dtype), after)


def _refuses(train: Any, model: Any, batch: Any, optimizer: Any) -> bool:
    """Whether a training step stops at a loss that was never reduced to one number."""

    def unreduced(_: Any, outputs: Any, __: Any) -> Any:
        return (outputs[0] if isinstance(outputs, tuple) else outputs).sum(-1)

    try:
        train.train_step(model, [batch], unreduced, optimizer)
    except ValueError:
        return True
    return False
