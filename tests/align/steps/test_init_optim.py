"""The steps `init` and `optim` on the probe case: real processes, what they record, and bugs that each must see."""

import json
import re

import numpy as np
import pytest

from align.cases import find
from align.mutate.patch import Mutant
from align.mutate.runner import Runner
from align.pipeline import Options
from align.record.safe_pickle import read_dictionary

STEPS = ("init", "optim")
PIT, OPTIM, TRAIN, RECIPE = (f"paddle_impl/{name}.py" for name in ("pit", "optim", "train", "recipe"))


@pytest.fixture(scope="module")
def run(ran):
    """A finished run of both steps, and of the losses: its folder, its rows by step and name, its verdict."""
    out, _ = ran("init", "loss", "optim")
    rows = {}
    for line in (out / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["step"], row["name"]] = row
    return out, rows, json.loads((out / "verdict.json").read_text())


def test_a_correct_port_is_aligned(run):
    _, _, verdict = run
    assert verdict["verdict"] == "aligned"
    verdicts = {step["step"]: step["verdict"] for step in verdict["steps"]}
    assert verdicts == {"init": "aligned", "loss": "aligned", "optim": "aligned"}
    init, _, optim = (step["worst"] for step in verdict["steps"])
    assert 0 < init["meaning"]["error"] < init["meaning"]["limit"]
    assert init["precision"] is None  # drawn values have no twin
    assert optim["meaning"]["ratio"] < 64
    assert optim["precision"]["ratio"] < 64


@pytest.mark.parametrize("side", ["torch", "paddle"])
def test_headlines_have_the_names_of_the_contract(run, side):
    out, _, _ = run
    init, optim = (read_dictionary(out / f"{step}_{side}.npy") for step in STEPS)
    parameters = {key.rpartition("/")[0] for key in init}
    assert {"pos_embed", "cls_token", "head_dist.bias", "transformers.2.blocks.0.norm2.weight"} <= parameters
    assert {key.rpartition("/")[2] for key in init} == {"bounds", "mean", "std", "distinct"}
    pattern = re.compile(r"(.+)/(param|exp_avg|exp_avg_sq|step)/(\d+)")
    found = [match.groups() for key in optim if (match := pattern.fullmatch(key))]
    assert {name for name, _, _ in found} == parameters  # the same network, of other sizes
    assert {int(updates) for _, _, updates in found} == {1, 2, 3, 10}
    for name, slot, updates in found:
        array = optim[f"{name}/{slot}/{updates}"]
        assert (array == int(updates) and array.dtype == np.int64) if slot == "step" else array.dtype == np.float32
    rest = [key for key in optim if not pattern.fullmatch(key)]
    assert {key.partition("/")[0] for key in rest} == {"grad_norm", "lr", "lr_resumed"}


def test_the_rate_is_recorded_for_every_iteration_and_after_the_end(run):
    out, _, _ = run
    curves = read_dictionary(out / "optim_torch.npy")
    recipe = find("pit_probe").training
    rate = curves["lr/recipe"]
    assert rate.shape == (recipe.iterations + 10,)
    assert (rate[0], rate[-1]) == (recipe.warmup_lr, recipe.min_lr)
    assert np.all(np.diff(rate[: recipe.warmup_iterations]) > 0)
    assert np.all(np.diff(rate[recipe.warmup_iterations : recipe.iterations]) < 0)
    for name in ("recipe", "cold", "warm", "single"):
        half = len(curves[f"lr/{name}"]) - len(curves[f"lr_resumed/{name}"])
        assert np.array_equal(curves[f"lr/{name}"][half:], curves[f"lr_resumed/{name}"])


def test_every_scenario_is_judged(run):
    _, rows, _ = run
    optim = [name for step, name in rows if step == "optim"]
    assert {
        f"{scenario}/cls_token/param/{updates}"
        for scenario, last in {
            "adamw": 10, "adam": 10, "sgd": 10, "momentum": 10, "clipped": 10, "unclipped": 10, "scheduled": 10,
            "resumed": 10, "resumed_momentum": 10, "long": 1000,
        }.items()
        for updates in ((1, 2, 3, 10) if last == 10 and not scenario.startswith("resumed") else (last,))
    } <= set(optim)  # fmt: skip
    assert any(name.startswith("sgd/") for name in optim)
    assert not any(name.startswith("sgd/") and "/param/" not in name for name in optim)  # it keeps nothing
    assert rows["optim", "default/recipe/lr"]["verdict"] == "aligned"


def test_no_parameter_is_compared_blindly(run):
    """An unused parameter, too, has a row that could have failed: it must stay as it was."""
    _, rows, _ = run
    parameters = [row for row in rows.values() if row["kind"] == "parameter"]
    assert {row["verdict"] for row in parameters} == {"aligned"}
    assert {row["verdict"] for (step, _), row in rows.items() if step == "init"} == {"aligned"}


def test_init_is_the_same_in_every_run(align, run, tmp_path):
    out, _, _ = run
    result = align("run", "init", "--case", "pit_probe", "--out", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    for side in ("torch", "paddle"):
        first, second = (read_dictionary(folder / f"init_{side}.npy") for folder in (out, tmp_path))
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    with Runner(Options(find("pit_probe"), folder, STEPS), folder) as runner:
        yield runner


UNIFORM = "Uniform(-(fan_in**-0.5), fan_in**-0.5)"
CLIP = "norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm).item()"
PROJECTION = "self.proj = nn.Linear(dim, dim, **torch_init(dim))"
BIAS = '"bias_attr": uniform}'
BUGS = [
    Mutant("bias-zero", "init", PIT, BIAS, '"bias_attr": nn.initializer.Constant(0.0)}'),
    Mutant("depthwise-fan", "init", PIT, "torch_init((stride + 1) ** 2)", "torch_init(in_dim * (stride + 1) ** 2)"),
    Mutant("range-1.2", "init", PIT, PROJECTION, PROJECTION.replace("init(dim)", "init(dim / 1.44)")),
    Mutant("normal-for-uniform", "init", PIT, UNIFORM, "nn.initializer.Normal(0.0, (3 * fan_in) ** -0.5)"),
    Mutant("cut-at-two-deviations", "init", PIT, "Normal(std=0.02)", "Normal(std=0.02, a=-0.04, b=0.04)"),
    Mutant("seed-in-the-layer", "init", PIT, UNIFORM, f"(paddle.seed(7), {UNIFORM})[1]"),
    Mutant(
        "clip-without-1e-6",
        "optim",
        OPTIM,
        CLIP,
        CLIP.replace("clip_norm)", "1e30)")
        + """
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.set_value(parameter.grad * min(1.0, clip_norm / norm))""",
    ),
    Mutant(
        "none-as-zero",
        "optim",
        OPTIM,
        "    optimizer.step()\n",
        """    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = paddle.zeros_like(parameter)
    optimizer.step()
""",
    ),
    Mutant("nesterov", "optim", OPTIM, "momentum=momentum, ", "momentum=momentum, use_nesterov=True, "),
    Mutant("epsilon-one-percent", "optim", OPTIM, '"epsilon": eps', '"epsilon": 1.01 * eps'),
    Mutant(
        "schedule-before-update",
        "optim",
        TRAIN,
        '    record["grad_norm"] = update(optimizer, model, clip_norm)\n',
        """    if schedule:
        schedule.step()
    record["grad_norm"] = update(optimizer, model, clip_norm)
    schedule = None
""",
    ),
    Mutant("resumed-one-late", "optim", OPTIM, "self.step(iteration)", "self.step(iteration + 1)"),
    Mutant("twice-the-rate", "optim", PIT, BIAS, '"bias_attr": paddle.ParamAttr(None, uniform, learning_rate=2.0)}'),
    Mutant("another-recipe", "optim", RECIPE, "type=float, default=0.05, help", "type=float, default=0.3, help"),
]


SLOW = [pytest.param(bug, id=bug.id, marks=pytest.mark.slow) for bug in BUGS]  # the reference takes minutes to record


@pytest.mark.parametrize("bug", SLOW)
def test_a_bug_is_seen_by_its_step(runner, bug):
    outcome = runner.run(bug)
    assert (outcome.error, outcome.verdict, outcome.blamed_step) == (None, "misaligned", bug.step)
