"""`optim`: optimizer, clipping and learning rate alone, on gradients that the plan gives both sides.

Every scenario is a fresh model, optimizer and run of updates. Its rows are `<scenario>/<parameter>/<slot>/<updates>`,
the slot `param` or what `optimizer_state` names; those of the recipe's own optimizer, over every parameter, have no
scenario in front. The parameters of the other scenarios are few, see `roles`.
"""

import importlib.util
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from align.case import Case
from align.plan.gradients import SETS
from align.record.builders import resolve
from align.record.context import Context

# Adam's, as float32 holds them. Paddle's float32 kernel works out 1 - beta in float32, and of .999 that is 1.3e-5 of
# itself off, a difference inherent in the framework; of these it is exact. That the defaults are .9 and .999 on both
# sides is a row of its own.
BETAS = (float(np.float32(0.9)), float(np.float32(0.999)))
UPDATES = (1, 2, 3, 10)
LONG = 1000
ROLES = ("zero", "plain", "tiny", "unused", "large")
TINY = 2.0 ** -(20 + np.arange(8))  # 9.5e-7 to 7.5e-9: around the epsilon of the recipe
LARGE = 2.0**10
# Peak, iterations, warm-up iterations: beside the recipe's, no warm-up, nothing but warm-up, and a single iteration.
SCHEDULES = {"cold": (5e-4, 50, 0), "warm": (5e-4, 10, 30), "single": (3e-4, 1, 0)}
RUNS_ON = 10  # updates after the schedule's end
RATES = ("lr", "lr_resumed", "default")  # what rows that belong to no scenario begin with
# The training program's arguments that decide about optimizer and schedule.
RECIPE = ("epochs", "batch_size", "accumulation", "lr", "weight_decay", "warmup_epochs", "warmup_lr", "min_lr")


@dataclass(frozen=True)
class Scenario:
    """One run of updates: arguments of `build_optimizer`, of `build_schedule`, of `update`; where it is recorded.

    `mixed`: gradients by the parameters' roles. `resumed`: after so many updates, all is saved and loaded into a fresh
    model, optimizer and schedule. `stepped`: through the package's `train_step`, which orders update and schedule.
    `everything`: every parameter, and not a few.
    """

    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any] | None = None
    clip_norm: float | None = None
    mixed: bool = True
    resumed: int | None = None
    stepped: bool = False
    updates: Collection[int] = UPDATES
    everything: bool = False


def scenarios(case: Case) -> dict[str, Scenario]:
    """By name. In the small ones, 0.1 of a decayed parameter goes with each update (lr * weight_decay)."""
    large = {"lr": 0.002, "weight_decay": 50.0}
    momentum = {"name": "momentum", "momentum": 0.9, **large}
    rates = {"lr": 0.002, "iterations": 8, "warmup_iterations": 3, "warmup_lr": 2e-4, "min_lr": 4e-4}
    table = {
        "": Scenario(case.optimizer, clip_norm=case.clip_norm, mixed=False, everything=True),
        "adamw": Scenario({"name": "adamw", **large}),
        "adam": Scenario({"name": "adam", **large}),
        "sgd": Scenario({"name": "sgd", **large}),
        "momentum": Scenario(momentum),
        "clipped": Scenario(momentum, clip_norm=0.5, mixed=False),
        "unclipped": Scenario({"name": "adamw", **large}, clip_norm=1e4, mixed=False),
        "scheduled": Scenario({"name": "adamw", **large}, rates, stepped=True),
        "resumed": Scenario({"name": "adamw", **large}, rates, resumed=5, updates=(10,)),
        "resumed_momentum": Scenario(momentum, rates, resumed=5, updates=(10,)),
    }
    recipe = schedule_of(case)
    long = {**recipe, "iterations": LONG, "warmup_iterations": LONG // 20}
    return {**table, "long": Scenario(case.optimizer, long, updates=(LONG,))}


def record(context: Context) -> None:
    _record(context, scenarios(context.case), schedules(context.case))


def is_early(row: str) -> bool:
    """Whether a row is of any scenario but the long one."""
    return row.partition("/")[0] != "long"


def record_early(context: Context) -> None:
    """All but the long scenario, which takes most of the time and does what the others do."""
    table = {name: scenario for name, scenario in scenarios(context.case).items() if is_early(f"{name}/")}
    _record(context, table, schedules(context.case))


def narrowed(rows: Collection[str], case: Case) -> list[str]:
    """The scenarios in which these rows are, as `<name>:<updates>` up to the first wrong one, and the schedules.

    Scenarios that are resumed or long do what others do, too: only where those are right.
    """
    table = scenarios(case)
    updates: dict[str, int] = {}
    for row in rows:
        parts = row.split("/")
        name = parts[0] if parts[0] in table else ""
        if not name and parts[0] in RATES:
            continue
        last = int(parts[-1]) if parts[-1].isdecimal() else max(table[name].updates)
        updates[name] = min(last, updates.get(name, last))
    plain = [name for name in updates if table[name].resumed is None and max(table[name].updates) < LONG]
    names = plain or sorted(updates, key=lambda name: max(table[name].updates))[:1]
    return [*(f"{name}:{updates[name]}" for name in names), *(row for row in rows if row.partition("/")[0] in RATES)]


def traced(context: Context, part: Collection[str] | None = None) -> None:
    """The step, or those parts of it that `narrowed` has chosen."""
    if part is None:
        record(context)
        return
    table, rates = scenarios(context.case), schedules(context.case)
    chosen = {name: int(last) for name, colon, last in (item.partition(":") for item in part) if colon}
    some = {name: _until(table[name], last) for name, last in chosen.items()}
    named = {row.split("/")[1] for row in part if row.startswith(("lr/", "lr_resumed/"))}
    _record(
        context, some, {name: rates[name] for name in rates if name in named}, any("default/" in row for row in part)
    )


def _until(scenario: Scenario, last: int) -> Scenario:
    return replace(scenario, updates=[update for update in scenario.updates if update <= last])


def _record(
    context: Context, table: Mapping[str, Scenario], rates: Mapping[str, Mapping[str, Any]], defaults: bool = True
) -> None:
    for done, (name, scenario) in enumerate(table.items(), 1):
        _run(context, f"{name}/" if name else "", scenario)
        context.progress(done, len(table) + 1)
    _learning_rates(context, rates)
    if defaults:
        _defaults(context)


def roles(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """What gradient each parameter of the small scenarios is given; one that is not named has none.

    Of each kind of parameter, by its last name and number of axes, the smallest few: decayed and exempt ones in every
    role. `unused` ones have no gradient either, but are recorded, because they must not change.
    """
    kinds: dict[tuple[str, int], list[str]] = {}
    for name in sorted(shapes, key=lambda name: np.prod(shapes[name])):
        kinds.setdefault((name.rpartition(".")[2], len(shapes[name])), []).append(name)
    chosen = {name: role for names in kinds.values() for name, role in zip(names, ROLES, strict=False)}
    return {name: chosen[name] for name in shapes if name in chosen}


def shapes_of(plan: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Of every parameter, from the tensors of a plan."""
    prefix = "optim/parameter/"
    return {name.removeprefix(prefix): plan[name].shape for name in plan if name.startswith(prefix)}


def gradients(
    scenario: Scenario, shapes: Mapping[str, Sequence[int]], array: Callable[[str], np.ndarray]
) -> list[dict[str, np.ndarray]]:
    """The scenario's gradients of `SETS` iterations, by the reference's names; roles are powers of two, thus exact.

    `array` gives a tensor of the plan by its name.
    """
    given = roles(shapes)
    sets = []
    for i in range(SETS):
        if scenario.everything:
            sets.append({name: array(f"optim/gradient/{i}/{name}") for name in shapes})
            continue
        arrays = {name: array(f"optim/gradient/{i}/{name}") for name in given}
        if scenario.mixed:
            arrays = {name: _in_role(values, given[name]) for name, values in arrays.items() if given[name] != "unused"}
        sets.append(arrays)
    return sets


def _in_role(array: np.ndarray, role: str) -> np.ndarray:
    factor = {"plain": 1.0, "large": LARGE, "zero": 0.0, "tiny": np.resize(TINY, array.shape)}[role]
    return (array * factor).astype(array.dtype)


class _Trained:
    """A fresh model with its optimizer and schedule, and the gradients that its parameters are given, in turn.

    The model is the small one that the case trains, or else the case's own. `names` has the reference's name of each
    parameter by its own; `parameters` are its first values, by the reference's names.
    """

    def __init__(self, context: Context, scenario: Scenario, parameters: Mapping[str, np.ndarray]) -> None:
        self.context, self.scenario = context, scenario
        side, case, optim = context.side, context.case, context.package("optim")
        if case.training:
            recipe = case.training
            self.model = side.build(resolve(recipe.reference if side.name == "torch" else recipe.port), recipe.build)
            self.names = {name: name for name in parameters}
        else:
            self.model = side.build(resolve(case.builder(side.name)), case.build)
            self.names = {own: name for own, name in context.reference_names.items() if name in parameters}
        held = {name: array for name, (_, array) in side.state(self.model).items()}  # buffers stay as they are
        side.load(self.model, {**held, **{own: parameters[name] for own, name in self.names.items()}})
        side.set_training(self.model, True)
        self.parameters = dict(self.model.named_parameters())
        self.gradients = [
            side.like_parameters(self.model, {own: given[name] for own, name in self.names.items() if name in given})
            for given in gradients(scenario, shapes_of(context.plan.tensors), context.array)
        ]
        self.optimizer = optim.build_optimizer(self.model, **{"betas": BETAS, **context.scalars(scenario.optimizer)})
        self.schedule: Any = None
        if scenario.schedule:
            self.schedule = optim.build_schedule(self.optimizer, **context.scalars(scenario.schedule))

    def update(self, update: int) -> float | None:
        """One update by the package's public functions; the norm before clipping."""
        scenario, given = self.scenario, self.gradients[update % SETS]
        if scenario.stepped:
            return self._train_step(given)
        for own, parameter in self.parameters.items():
            self.context.side.set_gradient(parameter, given.get(own))
        clip = None if scenario.clip_norm is None else self.context.scalar(scenario.clip_norm)
        norm = self.context.package("optim").update(self.optimizer, self.model, clip)
        if self.schedule:
            self.schedule.step()
        return norm

    def _train_step(self, given: Mapping[str, Any]) -> float | None:
        """The package's own step on a loss whose gradients are the given ones: the sum of parameter * gradient.

        What it does with gradients of earlier steps, with micro-batches or with the model is `train_align`'s.
        """
        side = self.context.side
        side.clear_gradients(self.model)
        batch = side.from_numpy(np.zeros((1, 1), np.float32)), side.from_numpy(np.zeros(1, np.int64))
        told = self.context.package("train").train_step(
            side.as_model(lambda inputs: inputs),
            [batch],
            lambda *_: sum((self.parameters[own] * gradient).sum() for own, gradient in given.items()),
            self.optimizer,
            schedule=self.schedule,
        )
        return told["grad_norm"]

    def resumed(self, updates: int) -> "_Trained":
        """All anew, from what the packages' public functions save."""
        optim = self.context.package("optim")
        state = optim.optimizer_state(self.optimizer, self.model)
        held = {name: array for name, (_, array) in self.context.side.state(self.model).items()}
        fresh = _Trained(self.context, self.scenario, {name: held[own] for own, name in self.names.items()})
        optim.load_optimizer_state(fresh.optimizer, fresh.model, state)
        fresh.schedule.resume(updates)
        return fresh


def _run(context: Context, prefix: str, scenario: Scenario) -> None:
    trained, rates = _Trained(context, scenario, context.arrays("optim/parameter/")), []
    for update in range(1, max(scenario.updates) + 1):
        made = {"schedule": (trained.schedule, "step")} if trained.schedule else {}
        if trained.schedule:
            rates.append(trained.schedule.lr)
        with context.watching(trained.model, **made):
            norm = trained.update(update)
        if update in scenario.updates:
            _emit(context, prefix, trained, update)
            if norm is not None:
                context.emit(f"{prefix}grad_norm/{update}", norm, "statistic", headline=not prefix)
        if update == scenario.resumed:
            trained = trained.resumed(update)
    if rates:
        context.emit(f"{prefix}lr", np.array(rates), "curve")


def _emit(context: Context, prefix: str, trained: _Trained, updates: int) -> None:
    """Parameters and the optimizer's state, by the reference's names."""
    wanted = None if trained.scenario.everything else roles(shapes_of(context.plan.tensors))
    slots: dict[str, dict[str, tuple[str, np.ndarray]]] = {}
    for own, (_, array) in context.side.state(trained.model).items():
        if own in trained.names:
            slots[trained.names[own]] = {"param": ("parameter", array)}
    state = context.package("optim").optimizer_state(trained.optimizer, trained.model)
    for key, array in state.items():
        own, _, slot = key.rpartition("/")
        slots[trained.names[own]][slot] = ("state", array)
    for name, table in slots.items():
        if wanted is None or name in wanted:
            for slot, (kind, array) in table.items():
                context.emit(f"{prefix}{name}/{slot}/{updates}", array, kind, headline=not prefix)


def schedules(case: Case) -> dict[str, dict[str, Any]]:
    """Arguments of every schedule of which the rates are recorded, by name."""
    table = {"recipe": schedule_of(case)}
    for name, (peak, iterations, warmup) in SCHEDULES.items():
        table[name] = {"lr": peak, "iterations": iterations, "warmup_iterations": warmup}
    return table


def schedule_of(case: Case) -> dict[str, Any]:
    """The schedule of the case's training, or of a short one."""
    recipe = case.training
    if recipe is None:
        return {"lr": 5e-4, "iterations": 100, "warmup_iterations": 10, "warmup_lr": 1e-6, "min_lr": 1e-5}
    fields = ("iterations", "warmup_iterations", "warmup_lr", "min_lr")
    return {"lr": recipe.optimizer["lr"], **{name: getattr(recipe, name) for name in fields}}


def _learning_rates(context: Context, table: Mapping[str, Mapping[str, Any]]) -> None:
    """The rate before every update and some after the schedule's end: run through, and resumed half-way."""
    if not table:
        return
    optim = context.package("optim")
    model = _Trained(context, Scenario({"name": "sgd"}), context.arrays("optim/parameter/")).model

    def schedule(recipe: Mapping[str, Any]) -> Any:
        return optim.build_schedule(optim.build_optimizer(model, name="sgd", lr=0.5), **context.scalars(recipe))

    for name, recipe in table.items():
        half, end = recipe["iterations"] // 2, recipe["iterations"] + RUNS_ON
        resumed = schedule(recipe)
        resumed.resume(half)
        for kind, running, first in (("lr", schedule(recipe), 0), ("lr_resumed", resumed, half)):
            rates = []
            for _ in range(first, end):
                rates.append(running.lr)
                running.step()
            context.emit(f"{kind}/{name}", np.array(rates), "curve", headline=True)


def _defaults(context: Context) -> None:
    """The recipe's numbers that the packages hold themselves: defaults of functions and of the training program."""
    optim = context.package("optim")
    for function in (optim.build_optimizer, optim.build_schedule):
        for name, parameter in inspect.signature(function).parameters.items():
            values = parameter.default if isinstance(parameter.default, tuple) else (parameter.default,)
            if all(type(value) in (int, float) for value in values):
                context.emit(f"default/{function.__name__}/{name}", np.array(values, np.float64), "statistic")
    if importlib.util.find_spec(f"{optim.__package__}.recipe") is None:
        return
    recipe = context.package("recipe")
    arguments = recipe.parse_arguments(["--data", ".", "--output", "."])
    for name in RECIPE:
        context.emit(f"default/recipe/{name}", np.array(getattr(arguments, name), np.float64), "statistic")
    for images in (64, 1536):
        arguments.batch_size, arguments.accumulation = images // 4, 4
        context.emit(f"default/recipe/peak_lr/{images}", np.array(recipe.peak_lr(arguments)), "statistic")
