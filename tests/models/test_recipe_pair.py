"""Losses, metric, optimizers, schedule and training of both sides: against each other, and each against formulas.

Everything is in float64, where a difference of meaning cannot hide in rounding. Each side computes its results in one
process of its own (`recipe_probe.py`).
"""

import math

import numpy as np
import pytest

from tests.models.recipe_probe import (
    ALPHA,
    OPTIMIZERS,
    PARTS,
    SAMPLES,
    SCHEDULE_STEPS,
    SCHEDULES,
    SETTINGS,
    SMOOTHING,
    SNAPSHOTS,
    TAU,
    loss_inputs,
)
from tests.models.recipe_sides import CLASSES, DECAYED, PARAMETERS, gradient_value, initial_value

SIDES = ("torch_ref", "paddle_impl")
LOSSES = ("hard", "ignored", "ignored_3", "smooth", "soft", "kd_none", "kd_soft", "kd_hard")
START = "import runpy; runpy.run_module('tests.models.recipe_probe', run_name='__main__')"
# Observed differences between the sides are at most 3e-16 (losses, gradients of losses) and 5e-15 (optimizers with
# representable settings, 20 steps), relative; this leaves a factor for other processors and library versions.
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def facts(run_python, tmp_path_factory):
    """{package: {part: {key: array}}}."""
    result = {}
    for package in SIDES:
        out = tmp_path_factory.mktemp(package)
        run_python(START, package, out)
        result[package] = {part: dict(np.load(out / f"{part}.npz")) for part in PARTS}
    return result


def distance(value, reference):
    """Relative Frobenius distance; NaN counts as infinite unless both are NaN everywhere."""
    value, reference = np.asarray(value, dtype="float64"), np.asarray(reference, dtype="float64")
    assert value.shape == reference.shape
    if np.isnan(reference).all() and np.isnan(value).all():
        return 0.0
    distance = np.linalg.norm(np.ravel(value - reference)) / max(np.linalg.norm(np.ravel(reference)), 1e-300)
    return math.inf if np.isnan(distance) else distance


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def expected_losses():
    """Loss name -> value, from the papers' formulas."""
    given = loss_inputs()
    logp, logp_kd = log_softmax(given["logits"]), log_softmax(given["logits_kd"])
    picked = -logp[np.arange(SAMPLES), given["labels"]]
    smooth = (1 - SMOOTHING) * picked.mean() - SMOOTHING * logp.mean()
    teacher = log_softmax(given["teacher"] / TAU)
    divergence = (np.exp(teacher) * (teacher - log_softmax(given["logits_kd"] / TAU))).sum() * TAU**2
    decisions = -logp_kd[np.arange(SAMPLES), given["teacher"].argmax(1)]
    return {
        "hard": picked.mean(),
        "ignored": np.delete(picked, 2).mean(),
        "ignored_3": np.delete(picked, 3).mean(),
        "smooth": smooth,
        "soft": -(given["soft"] * logp).sum(1).mean(),
        "kd_none": smooth,
        "kd_soft": (1 - ALPHA) * smooth + ALPHA * divergence / (SAMPLES * CLASSES),
        "kd_hard": (1 - ALPHA) * smooth + ALPHA * decisions.mean(),
        "all_ignored": math.nan,
    }


@pytest.mark.parametrize("loss", [*LOSSES, "all_ignored"])
@pytest.mark.parametrize("package", SIDES)
def test_loss_has_the_value_of_its_formula(facts, package, loss):
    assert distance(facts[package]["losses"][f"{loss}/value"], expected_losses()[loss]) <= ROUNDING


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_agree_in_value_and_in_both_heads_gradients(facts, loss):
    reference, port = (facts[package]["losses"] for package in SIDES)
    for key in ("value", "grad", "grad_kd"):
        assert distance(port[f"{loss}/{key}"], reference[f"{loss}/{key}"]) <= ROUNDING, key


@pytest.mark.parametrize("package", SIDES)
def test_ignored_label_gets_no_gradient_and_distillation_reaches_its_head(facts, package):
    losses = facts[package]["losses"]
    assert not losses["ignored/grad"][2].any()
    assert losses["ignored/grad"][[0, 1, 3, 4, 5]].any(axis=1).all()
    assert losses["kd_soft/grad_kd"].shape == losses["kd_hard/grad_kd"].shape == (SAMPLES, CLASSES)
    assert losses["kd_none/grad_kd"].shape == ()  # no gradient at all


@pytest.mark.parametrize("package", SIDES)
def test_accuracy_is_the_exact_fraction(facts, package):
    accuracies = facts[package]["accuracies"]
    logits, labels = accuracies["logits"], accuracies["labels"]
    rank = (logits > logits[np.arange(37), labels][:, None]).sum(1)
    top = {k: int((rank < k).sum()) / 37 for k in (1, 2, 3, 5)}
    assert 0 < top[1] < top[5] < 1
    assert accuracies["top_1_5"].tolist() == [top[1], top[5]]
    assert accuracies["top_3_2"].tolist() == [top[3], top[2]]
    assert accuracies["few_classes"][1] == 1.0  # k = 5 of three classes


def test_accuracy_breaks_ties_alike(facts):
    reference, port = (facts[package]["accuracies"]["few_classes"] for package in SIDES)
    assert port.tolist() == reference.tolist()


def expected_parameters(name, setting, rounded):
    """{step: {parameter: value}} by the update rules in float64: AdamW 1711.05101, Adam 1412.6980, heavy ball.

    `rounded` is applied to AdamW's decay and to Momentum's momentum.
    """
    lr, weight_decay, momentum, clip_norm = SETTINGS[setting]
    momentum = float(rounded(momentum)) if name == "momentum" else 0.0
    if name == "adamw":
        weight_decay = float(rounded(weight_decay))
    values = {parameter: initial_value(parameter) for parameter in PARAMETERS}
    first, second = (dict.fromkeys(PARAMETERS, 0.0) for _ in range(2))
    result = {}
    for step in range(1, max(SNAPSHOTS) + 1):
        gradients = {parameter: gradient_value(parameter, step) for parameter in PARAMETERS}
        gradients = {parameter: gradient for parameter, gradient in gradients.items() if gradient is not None}
        norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        scale = 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
        for parameter, gradient in gradients.items():
            gradient, value = gradient * scale, values[parameter]
            decay = weight_decay if parameter in DECAYED else 0.0
            if name == "adamw":
                value = value * (1 - lr * decay)
            else:
                gradient = gradient + decay * value
            if name in ("adamw", "adam"):
                first[parameter] = 0.9 * first[parameter] + 0.1 * gradient
                second[parameter] = 0.999 * second[parameter] + 0.001 * gradient**2
                spread = np.sqrt(second[parameter] / (1 - 0.999**step)) + 1e-8
                value = value - lr * first[parameter] / (1 - 0.9**step) / spread
            else:
                first[parameter] = momentum * first[parameter] + gradient
                value = value - lr * first[parameter]
            values[parameter] = value
        if step in SNAPSHOTS:
            result[step] = dict(values)
    return result


@pytest.mark.parametrize("step", SNAPSHOTS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_agree_on_given_gradients(facts, name, setting, step):
    """Both sides follow the same formula; what differs is only that Paddle's kernels hold two scalars in float32.

    Observed between the sides, recipe setting, 20 steps: AdamW 7.4e-12, Momentum 3.0e-9, Adam and SGD below 1e-16; with
    learning rate 0.1 and decay 0.3: AdamW 2.2e-8, Momentum 2.4e-7. With representable scalars: all below 1e-14.
    """
    seen = {package: facts[package]["optimizers"] for package in SIDES}
    rounded = {"torch_ref": float, "paddle_impl": np.float32 if name in ("adamw", "momentum") else float}
    for package in SIDES:
        expected = expected_parameters(name, setting, rounded[package])[step]
        for parameter, value in expected.items():
            error = distance(seen[package][f"{name}/{setting}/{step}/{parameter}"], value)
            assert error <= ROUNDING, f"{package}: {parameter}"
    for parameter in PARAMETERS if setting == "representable" else ():
        key = f"{name}/{setting}/{step}/{parameter}"
        assert distance(seen["paddle_impl"][key], seen["torch_ref"][key]) <= ROUNDING, parameter


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("package", SIDES)
def test_parameters_without_gradient_do_not_move_not_even_by_decay(facts, package, name):
    for parameter in ("unused.weight", "unused.bias", "frozen.weight", "frozen.bias"):
        value = facts[package]["optimizers"][f"{name}/large/20/{parameter}"]
        assert np.array_equal(value, initial_value(parameter)), parameter


@pytest.mark.parametrize("package", SIDES)
def test_norm_is_the_global_one_before_clipping(facts, package):
    norms = facts[package]["optimizers"]
    first = [gradient_value(parameter, 1) for parameter in PARAMETERS]
    expected = math.sqrt(sum((gradient**2).sum() for gradient in first if gradient is not None))
    assert norms["adamw/large/norms"][0] == pytest.approx(expected, rel=1e-14)
    assert np.isnan(norms["adamw/recipe/norms"]).all()  # no clipping, no norm


@pytest.mark.parametrize("package", SIDES)
def test_what_decays_is_told_by_dimension_bias_and_the_model(facts, package):
    groups = {key: value.item() for key, value in facts[package]["groups"].items()}
    assert groups == {
        "0.05/0.0": "[[1, 3, 6], [6], [6], [6], [7], [4]]",
        "0.05/0.05": "[[6, 6], [6, 7], [4, 6]]",
        "0.0/0.0": "[[1, 3, 6], [6], [6], [6, 6], [6], [6, 7], [7], [4, 6], [4]]",
    }


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rates_are_equal_to_the_bit(facts, schedule):
    reference, port = (facts[package]["schedules"] for package in SIDES)
    assert len(reference[f"{schedule}/said"]) == SCHEDULE_STEPS
    for key in ("said", "used", "iteration"):
        assert port[f"{schedule}/{key}"].tolist() == reference[f"{schedule}/{key}"].tolist()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("package", SIDES)
def test_schedule_is_what_it_says(facts, package, schedule):
    """First update at the warm-up rate, cosine counted from iteration 0, the minimum from the end on."""
    peak, iterations, warmup = SCHEDULES[schedule]
    rates = facts[package]["schedules"]
    assert rates[f"{schedule}/said"].tolist() == rates[f"{schedule}/used"].tolist()
    assert rates[f"{schedule}/iteration"].tolist() == list(range(SCHEDULE_STEPS))
    for t, rate in enumerate(rates[f"{schedule}/used"]):
        if t < warmup:
            expected = 1e-6 + t * (peak - 1e-6) / warmup
        elif t < iterations:
            expected = 1e-5 + (peak - 1e-5) * (1 + math.cos(math.pi * t / iterations)) / 2
        else:
            expected = 1e-5
        assert rate == pytest.approx(expected, rel=1e-14), t


def test_errors_are_the_same_on_both_sides(facts):
    reference, port = ({k: v.item() for k, v in facts[package]["errors"].items()} for package in SIDES)
    assert port == reference


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        ("label_too_big", "ValueError: label 7 at index 5 is outside the classes 0..6"),
        ("label_negative", "ValueError: label -1 at index 2 is outside the classes 0..6"),
        ("label_column", "logits must have shape (N, classes) and labels (N,), not (6, 7) and (6, 1)"),
        ("accuracy_label", "label 7 at index 5"),
        ("accuracy_column", "(6, 7) and (6, 1)"),
        ("accuracy_empty", "no samples"),
        ("kd_type", "'warm': choose none, soft or hard"),
        ("kd_teacher", "soft distillation needs a teacher"),
        ("kd_one_head", "hard distillation needs a pair"),
        ("optimizer", "'lion': choose adamw, adam, sgd or momentum"),
        ("schedule", "0 iterations"),
        ("vector_loss", "ValueError: the criterion gave a loss of shape (4,)"),
        ("nan_loss", "TrainingFault: loss is nan (iteration 17, micro-batch 1 of 2)"),
        ("no_micro_batch", "at least one micro-batch"),
        ("no_batches", "nothing to evaluate"),
        ("accumulation", "accumulation over 0 batches"),
    ],
)
@pytest.mark.parametrize("package", SIDES)
def test_bad_input_is_named(facts, package, attempt, message):
    assert message in facts[package]["errors"][attempt].item()


def test_training_agrees(facts):
    """Observed: 1.4e-11 in the outputs after three updates, from float32 scalars in AdamW and LayerNorm's epsilon."""
    reference, port = (facts[package]["training"] for package in SIDES)
    for key, value in reference.items():
        if value.dtype.kind != "U":
            assert distance(port[key], value) <= 1e-9, key  # the interim rule for meaning


@pytest.mark.parametrize("package", SIDES)
def test_fit_steps_once_for_each_group_of_micro_batches(facts, package):
    """Five batches in twos: three updates, each followed by one EMA update, then the schedule, then the callback."""
    training = facts[package]["training"]
    assert training["iterations"] == 3
    events = "[('ema', 0), ('iteration', 0), ('ema', 1), ('iteration', 1), ('ema', 2), ('iteration', 2)]"
    assert training["events"].item() == events
    assert training["lr"].tolist() == pytest.approx([1e-4, 5.05e-3, 1e-5 + (1e-2 - 1e-5) / 2], rel=1e-12)
    assert training["gradients_left"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("package", SIDES)
def test_evaluation_restores_the_mode_of_every_module(facts, package):
    assert facts[package]["training"]["modes"].tolist() == [[True, False, True]] * 3


@pytest.mark.parametrize("package", SIDES)
def test_a_nan_loss_leaves_weights_and_gradients_as_they_were(facts, package):
    training = facts[package]["training"]
    assert training["failed"].item().startswith("loss is nan (micro-batch 2 of 2); the weights are unchanged: ")
    assert training["failed_gradients_left"] == 0
    for parameter in PARAMETERS:
        assert np.array_equal(training[f"failed/{parameter}"], initial_value(parameter)), parameter


@pytest.mark.parametrize("package", SIDES)
def test_evaluation_weighs_ragged_batches_by_their_size(facts, package):
    result = facts[package]["ragged_evaluation"]
    logits, labels = result["logits"], result["labels"]
    rank = (logits > logits[np.arange(8), labels][:, None]).sum(1)
    logp = log_softmax(logits)
    for batches in ("ragged", "whole"):
        assert result[f"{batches}/samples"] == 8
        assert result[f"{batches}/acc1"] == pytest.approx((rank < 1).mean(), abs=1e-15)
        assert result[f"{batches}/acc5"] == pytest.approx((rank < 5).mean(), abs=1e-15)
        assert distance(result[f"{batches}/loss"], -logp[np.arange(8), labels].mean()) <= ROUNDING
    smooth = -0.9 * logp[np.arange(8), labels].mean() - 0.1 * logp.mean()
    assert distance(result["smooth/loss"], smooth) <= ROUNDING
    # the sample-weighted mean is not the mean of the batches' means, or this test could not fail
    parts = [(rank[a:b] < 5).mean() for a, b in ((0, 4), (4, 7), (7, 8))]
    assert abs(np.mean(parts) - (rank < 5).mean()) > 1e-3
