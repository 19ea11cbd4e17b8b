"""Causes in losses, optimizers and schedules: the numpy models against real recordings, then ports made by them."""

from dataclasses import replace

import numpy as np
import pytest

from align.cases import find
from align.diagnose.criteria import criteria
from align.diagnose.families import criterion, optimizer, schedule, training
from align.diagnose.prove import diagnose
from align.diagnose.rows import evidences, recorded
from align.locate.modules import LIMIT, own_error
from align.mutate.attempt import as_runs
from align.pipeline import TWIN, Options
from align.record.manifest import Recording, latest
from align.sides import SIDES
from align.steps.loss import SQUARE

DTYPES = ("float32", TWIN)
SCENARIOS = ("", "adamw", "adam", "sgd", "momentum", "clipped", "unclipped", "scheduled", "resumed", "resumed_momentum")


@pytest.fixture(scope="module")
def runs(ran):
    steps = ("init", "loss", "optim")
    options = Options(find("pit_probe"), ran(*steps)[0], steps)
    kept = {(side, dtype): latest(options.folder, options.prefix(side, dtype)) for side in SIDES for dtype in DTYPES}
    return as_runs({key: Recording(folder) for key, folder in kept.items()}, options.dtype)


@pytest.fixture(scope="module")
def losses(runs):
    return recorded(runs, "loss")


@pytest.fixture(scope="module")
def updates(runs):
    return recorded(runs, "optim")


def cause_of(rows, port, row):
    """Of a row, where the port made these arrays instead of the reference's."""
    evidence = list(evidences(replace(rows, port={**rows.reference, **port}), [row], {}))
    return diagnose([evidence])[0]


def test_every_loss_is_made_again(losses):
    given = criterion.given(losses, exact=True)
    formulas = criteria(given)
    assert formulas.keys() == {name for name in losses.reference if "/" not in name and not name.startswith(SQUARE)}
    for name, formula in formulas.items():
        for side in (losses.reference, losses.port):
            made = formula.vector()
            assert own_error(made[:1], side[name].reshape(1)) <= LIMIT
            assert own_error(made[1 : 1 + given.logits.size], side[f"{name}/grad"].reshape(-1)) <= LIMIT


def loss_rows(formula, name):
    made, shape = formula.vector(), formula.given.logits.shape
    size = formula.given.logits.size
    rows = {name: made[0].reshape(()), f"{name}/grad": made[1 : 1 + size].reshape(shape)}
    if "soft" in name.partition("_")[2] and name.startswith("distillation"):
        rows[f"{name}/grad_kd"] = made[1 + size :].reshape(shape)
    return rows


@pytest.mark.parametrize(
    ("name", "term", "factor", "cause", "words"),
    [
        ("cross_entropy", "label", 8.0, "loss-reduction", "it is the sum over the samples"),
        ("cross_entropy_ignored", "label", 7 / 8, "loss-reduction", "ignored labels are counted"),
        ("cross_entropy", "label", 1 / np.log(2), "log-base", "base 2 in the port"),
        ("distillation_soft", "kl", 1 / 9, "temperature", "lacks the temperature squared"),
        ("distillation_soft", "kl", 64.0, "loss-reduction", "the number of classes"),
    ],
)
def test_a_weight_of_a_loss_is_recognised(losses, name, term, factor, cause, words):
    formula = criteria(criterion.given(losses, exact=True))[name]
    wrong = formula.changed(term, weight=formula.terms[term].weight * factor)
    found = cause_of(losses, loss_rows(wrong, name), name)
    assert found.id == cause
    assert words in found.text


@pytest.mark.parametrize(
    ("changes", "name", "cause", "words"),
    [
        ({"smoothing": 0.2}, "label_smoothing", "label-smoothing", "0.2 in the port, 0.1 in the reference"),
        ({"tau": 2.5}, "distillation_soft", "temperature", "2.5 in the port, 3 in the reference"),
        ({"alpha": 0.5}, "distillation_soft", "loss-weights", "0.5 in the port, 0.3 in the reference"),
    ],
)
def test_a_number_of_a_loss_is_solved_for(losses, changes, name, cause, words):
    wrong = criteria(replace(criterion.given(losses, exact=True), **changes))[name]
    found = cause_of(losses, loss_rows(wrong, name), name)
    assert found.id == cause
    assert words in found.text


def test_of_two_changes_in_a_loss_nothing_is_claimed(losses):
    given = replace(criterion.given(losses, exact=True), tau=2.5, alpha=0.5)
    wrong = criteria(given)["distillation_soft"]
    noise = 1e-9 * np.random.default_rng(0).standard_normal(given.logits.shape)
    rows = loss_rows(wrong, "distillation_soft")
    rows["distillation_soft/grad"] = rows["distillation_soft/grad"] + noise
    assert cause_of(losses, rows, "distillation_soft") is None


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_update_is_made_again(updates, scenario):
    this = optimizer.scenario_run(updates, f"{scenario}/pos_embed/param/1".lstrip("/"))
    made = this.vector(this.made(this.rule))
    assert made.size > 10_000
    assert own_error(made, this.vector(this.reference)) <= LIMIT
    assert own_error(made, this.vector(this.port)) <= LIMIT


def wrong_updates(updates, scenario, **changes):
    """The cause that is found where the port follows another rule."""
    prefix = f"{scenario}/" if scenario else ""
    this = optimizer.scenario_run(updates, f"{prefix}pos_embed/param/1")
    made = this.made(replace(this.rule, **changes))
    rows = {f"{prefix}{name}": array for name, array in made.items() if f"{prefix}{name}" in updates.reference}
    red = next(row for row, array in rows.items() if own_error(array, updates.reference[row]) > LIMIT)
    return cause_of(updates, rows, red)


@pytest.mark.parametrize(
    ("scenario", "changes", "cause", "words"),
    [
        ("adamw", {"eps": 1e-6}, "adam-epsilon", "epsilon 1e-06 in the port, 1e-08 in the reference"),
        ("adamw", {"epsilon": "inside"}, "adam-epsilon", "inside the square root"),
        ("adamw", {"epsilon": "uncorrected"}, "adam-epsilon", "before the bias correction"),
        ("adamw", {"beta1": 0.8}, "adam-beta1", "beta1 0.8 in the port, 0.9 in the reference"),
        ("adamw", {"beta2": 0.99}, "adam-beta2", "beta2 0.99 in the port, 0.999 in the reference"),
        ("adamw", {"decay": "coupled"}, "weight-decay-coupling", "added to the gradient in the port"),
        ("adam", {"decay": "decoupled"}, "weight-decay-coupling", "times the rate in the port"),
        ("adamw", {"weight_decay": 15.0}, "weight-decay", "weight decay 15 in the port, 50 in the reference"),
        ("adamw", {"corrected": False}, "bias-correction", "no bias correction"),
        ("sgd", {"decayed": frozenset()}, "weight-decay-groups", "only in the reference: "),
        ("momentum", {"momentum": 0.8}, "momentum", "momentum 0.8 in the port, 0.9 in the reference"),
        ("momentum", {"nesterov": True}, "momentum", "Nesterov"),
        ("clipped", {"clip": "group"}, "clipping", "each group's own norm"),
        ("clipped", {"added": 0.0}, "clipping", "without the 1e-6"),
        ("clipped", {"max_norm": 0.25}, "clipping", "greatest norm 0.25 in the port, 0.5 in the reference"),
        ("", {"clip": "parameter"}, "clipping", "each parameter's own norm"),
    ],
)
def test_another_rule_is_recognised(updates, scenario, changes, cause, words):
    found = wrong_updates(updates, scenario, **changes)
    assert found.id == cause
    assert words in found.text


def test_of_two_wrong_numbers_nothing_is_claimed(updates):
    assert wrong_updates(updates, "adamw", eps=1e-6, beta1=0.8) is None


def test_every_schedule_is_made_again(updates):
    names = [name for name in updates.reference if name.startswith(("lr/", "lr_resumed/")) or name.endswith("/lr")]
    rows = [name for name in names if not name.startswith("default/")]
    assert len(rows) > 8
    for row in rows:
        course, first = schedule._course("optim", row, updates.case, exact=True)
        for side in (updates.reference, updates.port):
            assert own_error(course.rates(first, len(side[row])), side[row]) <= LIMIT


@pytest.mark.parametrize(
    ("changes", "cause", "words"),
    [
        ({"warmup": 13}, "warmup", "warm-up of 13 iterations in the port, 10 in the reference"),
        ({"start": 1e-4}, "warmup", "first rate 0.0001 in the port, 1e-06 in the reference"),
        ({"cosine": 130}, "cosine-length", "length of the cosine 130 in the port, 100 in the reference"),
        ({"offset": 10, "cosine": 90}, "cosine-length", "begins after the warm-up, over the 90 left"),
        ({"low": 3e-5}, "minimum-rate", "least rate 3e-05 in the port"),
        ({"form": "linear"}, "schedule-form", "a straight line"),
    ],
)
def test_another_schedule_is_recognised(updates, changes, cause, words):
    course, first = schedule._course("optim", "lr/recipe", updates.case, exact=True)
    rates = replace(course, **changes).rates(first, len(updates.reference["lr/recipe"]))
    found = cause_of(updates, {"lr/recipe": rates}, "lr/recipe")
    assert found.id == cause
    assert words in found.text


@pytest.mark.parametrize("shift", [1, -1, 10])
def test_a_shifted_schedule_is_recognised(updates, shift):
    course, first = schedule._course("optim", "lr/recipe", updates.case, exact=True)
    rates = course.rates(first, len(updates.reference["lr/recipe"]), shift)
    assert cause_of(updates, {"lr/recipe": rates}, "lr/recipe").id == "schedule-shift"


def test_a_default_is_told_with_both_values(updates):
    found = cause_of(updates, {"default/build_optimizer/eps": np.array([1e-6])}, "default/build_optimizer/eps")
    assert found.id == "default-value"
    assert "1e-06 in the port, 1e-08 in the reference" in found.text


def test_a_path_follows_its_average():
    values = np.array([[1.0, 2.0], [3.0, 5.0]])
    made = training._path(np.zeros(2), values, 0.75)
    assert np.array_equal(made, [[0.25, 0.5], [0.9375, 1.625]])
