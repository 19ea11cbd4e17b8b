"""Training states that go from one framework to the other, the moving average, and faults that are told: both sides.

All is in float64. Each side works in processes of its own (`training_probe.py`); here their files are compared.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.models.training_probe import AVERAGE, HALF, PACKAGES, STEPS, values

START = "import runpy; runpy.run_module('tests.models.training_probe', run_name='__main__')"
# Observed, relative, whoever began and whoever went on: at most 4e-15 in anything but the keys' biases; this leaves a
# factor for other processors and library versions.
ROUNDING = 1e-13


@pytest.fixture(scope="module")
def folder(run_python, tmp_path_factory):
    """The folder with all states and answers."""
    folder = tmp_path_factory.mktemp("training")
    with ThreadPoolExecutor(2) as pool:
        for part in ("start", "resume", "facts"):
            list(pool.map(lambda package, part=part: run_python(START, package, part, folder), PACKAGES))
    return folder


@pytest.fixture(scope="module")
def answer(folder):
    return lambda package, part: json.loads((folder / f"{package}-{part}.json").read_text())


def distances(state, reference):
    """{tensor: relative distance}, without the keys' biases: their gradient is nothing but rounding.

    A bias on all keys alike adds the same to every score of a query, which softmax does not see; Adam blows it up.
    """
    assert state.keys() == reference.keys()
    found = {}
    for name, array in reference.items():
        other = state[name].astype("float64")
        assert other.shape == array.shape, name
        if name.endswith("qkv.bias") or "qkv.bias/" in name:
            third = len(array) // 3 if array.ndim else 0
            array, other = (np.delete(np.atleast_1d(a), slice(third, 2 * third)) for a in (array, other))
        found[name] = np.linalg.norm(other - array) / max(np.linalg.norm(array), 1e-300)
    return found


@pytest.mark.parametrize("second", PACKAGES)
@pytest.mark.parametrize("first", PACKAGES)
def test_a_run_that_was_resumed_ends_where_the_whole_run_ends(folder, first, second):
    resumed = load_file(folder / f"{first}-then-{second}.safetensors")
    for package in PACKAGES:
        far = distances(resumed, load_file(folder / f"{package}-whole.safetensors"))
        assert max(far.values()) <= ROUNDING, max(far, key=far.get)


def test_a_state_that_went_astray_would_be_seen(folder):
    """A square moment transposed, or one count too many, is far beyond rounding."""
    whole = load_file(folder / "torch_ref-whole.safetensors")
    square = "optimizer/transformers.0.blocks.0.attn.proj.weight/exp_avg"
    assert whole[square].shape[0] == whole[square].shape[1]
    count = "optimizer/cls_token/step"
    for name, wrong in ((square, whole[square].T), (count, whole[count] + 1)):
        assert distances({**whole, name: wrong}, whole)[name] > 1e6 * ROUNDING


@pytest.mark.parametrize("package", PACKAGES)
def test_resumed_on_the_same_side_not_a_bit_is_lost(folder, package):
    resumed, whole = (folder / f"{package}-{name}.safetensors" for name in (f"then-{package}", "whole"))
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("second", PACKAGES)
@pytest.mark.parametrize("first", PACKAGES)
def test_learning_rates_and_losses_go_on_as_if_nothing_had_been(answer, first, second):
    whole = answer(second, "start")["records"]
    resumed = answer(second, "resume")[first]["records"]
    assert len(whole) == STEPS
    assert len(resumed) == STEPS - HALF
    for record, expected in zip(resumed, whole[HALF:], strict=True):
        assert record["lr"] == expected["lr"]
        assert record["loss"] == pytest.approx(expected["loss"], rel=ROUNDING)
        assert record["grad_norm"] == pytest.approx(expected["grad_norm"], rel=ROUNDING)


def test_the_rates_of_both_sides_are_equal_and_move(answer):
    reference, port = ([record["lr"] for record in answer(package, "start")["records"]] for package in PACKAGES)
    assert reference == port
    assert len(set(reference)) == STEPS


@pytest.mark.parametrize("second", PACKAGES)
@pytest.mark.parametrize("first", PACKAGES)
def test_facts_come_back(answer, first, second):
    back = answer(second, "resume")[first]
    assert back["facts"] == {"epoch": 1, "best": 0.5}
    assert back["header"] == {"epoch": 1, "best": 0.5, "iteration": HALF}


def test_a_head_without_gradient_has_no_state_and_does_not_move(folder):
    for package in PACKAGES:
        half, whole = (load_file(folder / f"{package}-{name}.safetensors") for name in ("half", "whole"))
        assert not [name for name in whole if name.startswith("optimizer/head_dist")]
        assert [name for name in whole if name.startswith("optimizer/head.")]
        assert np.array_equal(half["model/head_dist.weight"], whole["model/head_dist.weight"])
        assert not np.array_equal(half["model/head.weight"], whole["model/head.weight"])
        assert not np.array_equal(whole["ema/head.weight"], whole["model/head.weight"])
        assert 0 < AVERAGE < 1


@pytest.mark.parametrize("package", PACKAGES)
def test_the_average_follows_its_formula(answer, package):
    average = answer(package, "facts")["average"]
    names = {name for name in average["state"] if not name.endswith("num_batches_tracked")}
    assert names == {
        "seen",
        *(f"{layer}.{leaf}" for layer in ("conv", "norm", "fc") for leaf in ("weight", "bias")),
    } | {
        "norm.running_mean",
        "norm.running_var",
    }
    for name in names:
        found = np.array(average["state"][name])
        expected = values(name, found, 0)
        for seed in range(1, 5):
            present = values(name, found, seed)
            expected = present if name == "seen" else 0.9375 * expected + (1 - 0.9375) * present
        assert np.abs(found - expected).max() <= 1e-15, name
    assert average["in_place"]
    assert average["set"]
    assert not average["training"]


@pytest.mark.parametrize(
    ("what", "message", "micro_batch", "sample"),
    [
        ("image", "loss is nan (iteration 5, micro-batch 2 of 2); the weights are unchanged: image of sample 2", 1, 2),
        ("parameter", "parameter transformers.1.blocks.0.mlp.fc1.weight is not finite", 0, None),
        ("logits", "logits of sample 1 not finite", 0, 1),
        ("all_logits", "the logits of no sample are finite", 0, None),
        ("target", "look at targets, teacher and criterion", 0, None),
        ("gradient", "gradient of head.bias is not finite, the loss is 0.0 (iteration 5)", 1, None),
    ],
)
@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_not_finite_is_named_and_changes_nothing(answer, package, what, message, micro_batch, sample):
    fault = answer(package, "facts")["faults"][what]
    assert message in fault["message"]
    assert (fault["micro_batch"], fault["sample"]) == (micro_batch, sample)
    assert fault["unchanged"]
    assert fault["gradients_left"] == 0


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        ("cut", "-cut.safetensors: truncated, corrupt or not safetensors"),
        ("weights", "-weights.safetensors: no training state"),
        ("missing", "none.safetensors: there is no such file"),
        ("no_average", "saved with an average of the weights, to be resumed without one"),
        ("other_model", "7 tensors are missing"),
        ("other_optimizer", "this optimizer keeps momentum_buffer"),
        ("suffix", "state.pth: a training state is a .safetensors file"),
    ],
)
@pytest.mark.parametrize("package", PACKAGES)
def test_a_state_that_does_not_fit_is_refused(answer, package, attempt, message):
    refused = answer(package, "facts")["refused"]
    assert message in refused[attempt]
    assert refused["unchanged"]
