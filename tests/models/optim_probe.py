"""One side's optimizer states, saved, loaded and gone on with.

`python -m tests.models.optim_probe PACKAGE OUT [OTHER]` writes OUT.npz of float64 results: states and parameters of
`RUN` updates by each optimizer, then the same with the second half in a fresh network, optimizer and schedule that are
given the state after the first half: this side's own, and the one in OTHER.npz, which another side wrote.
"""

import sys

import numpy as np

from tests.models.recipe_sides import gradient_value, open_side

RUN, HALF = 20, 10
OPTIMIZERS = ("adamw", "adam", "sgd", "momentum")
SCHEDULE = {"lr": 0.1, "iterations": 15, "warmup_iterations": 4}
# What float32 holds, as Paddle's kernels keep some of them in it.
SETTINGS = {"weight_decay": 0.25, "betas": (0.875, 0.9375), "eps": 2.0**-20, "momentum": 0.875}
UPDATED = ("pos_embed", "norm.bias", "square.weight", "fc.weight")
LATE = "unused.bias"  # gets its first gradient in the second half


def gradient(name, step):
    """None for what takes no part; `LATE` takes part from the second half on."""
    if name == LATE:
        return np.full(4, 0.5) if step >= HALF else None
    return gradient_value(name, step) if name in UPDATED else None


def start(side, recipe, name, parameters=None):
    """A fresh network with these parameters, its optimizer and its schedule."""
    network = side.network()
    if parameters is not None:
        side.load(network, parameters)
    optimizer = recipe.optim.build_optimizer(network, name, **SETTINGS)
    return network, optimizer, recipe.optim.build_schedule(optimizer, **SCHEDULE)


def go(side, recipe, parts, steps):
    network, optimizer, schedule = parts
    for step in steps:
        side.set_gradients(network, step, gradient)
        recipe.optim.update(optimizer, network, 0.5)
        schedule.step()


def whole(side, recipe, name):
    """Facts of a run in one piece."""
    facts, parts = {}, start(side, recipe, name)
    for label, steps in (("half", range(HALF)), ("end", range(HALF, RUN))):
        go(side, recipe, parts, steps)
        for key, array in recipe.optim.optimizer_state(parts[1], parts[0]).items():
            facts[f"{name}/{label}/state/{key}"] = array
        for key, array in side.parameters(parts[0]).items():
            facts[f"{name}/{label}/parameter/{key}"] = array
        facts[f"{name}/{label}/lr"] = np.array(parts[2].lr)
    return facts


def part(facts, prefix):
    return {key.removeprefix(prefix): array for key, array in facts.items() if key.startswith(prefix)}


def resumed(side, recipe, name, given):
    """The end of a run whose first half is in `given`, which either side may have written."""
    parts = start(side, recipe, name, part(given, f"{name}/half/parameter/"))
    state = part(given, f"{name}/half/state/")
    recipe.optim.load_optimizer_state(parts[1], parts[0], state)
    parts[2].resume(HALF)
    loaded = recipe.optim.optimizer_state(parts[1], parts[0])
    assert loaded.keys() == state.keys()
    assert all(np.array_equal(loaded[key], state[key]) for key in state), "what was loaded is not what is held"
    go(side, recipe, parts, range(HALF, RUN))
    facts = {f"{name}/end/parameter/{key}": array for key, array in side.parameters(parts[0]).items()}
    state = recipe.optim.optimizer_state(parts[1], parts[0])
    return {**facts, **{f"{name}/end/state/{key}": a for key, a in state.items()}, f"{name}/end/lr": parts[2].lr}


def errors(side, recipe):
    """The messages of states that do not fit."""
    moments = {"fc.bias/exp_avg": np.zeros(7), "fc.bias/exp_avg_sq": np.zeros(7), "fc.bias/step": np.array(1)}
    cases = {
        "unknown": {"head.bias/exp_avg": np.zeros(7)},
        "slot": {"fc.bias/momentum_buffer": np.zeros(7)},
        "shape": {**moments, "fc.bias/exp_avg": np.zeros(6)},
        "lacking": {"fc.bias/exp_avg": np.zeros(7)},
    }
    told = {}
    for label, state in cases.items():
        network, optimizer, _ = start(side, recipe, "adamw")
        try:
            recipe.optim.load_optimizer_state(optimizer, network, state)
        except ValueError as error:
            told[label] = np.array(str(error))
    return told


def main(package, out, other=None):
    side, recipe = open_side(package)
    facts = {}
    for name in OPTIMIZERS:
        facts |= whole(side, recipe, name)
    results = dict(facts)
    for label, given in {"own": facts, **({"other": dict(np.load(other))} if other else {})}.items():
        for name in OPTIMIZERS:
            results |= {f"{label}/{key}": array for key, array in resumed(side, recipe, name, given).items()}
    results |= {f"error/{label}": text for label, text in errors(side, recipe).items()}
    np.savez(out, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
