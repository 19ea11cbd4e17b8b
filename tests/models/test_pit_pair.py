"""PiT on both sides: equal to each other where they compute the same, and each as the paper and the official code say.

Each side computes its answers in one process of its own (`pit_probe.py`), in float64.
"""

import ast
import json
import math

import numpy as np
import pytest

from tests.models.pit_probe import MODELS

SIDES = ("torch_ref", "paddle_impl")
START = "import runpy; runpy.run_module('tests.models.pit_probe', run_name='__main__')"
# Seen: at most 4e-15 in outputs and 3e-14 in gradients (relative Frobenius distance). One LayerNorm of the last stage
# with epsilon 1e-5 is 4e-9 away, although these weights keep variances far above the epsilons.
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def answers(run_python, tmp_path_factory):
    """{package: (arrays, facts)}."""
    result = {}
    for package in SIDES:
        out = tmp_path_factory.mktemp(package)
        run_python(START, package, out)
        result[package] = dict(np.load(out / "arrays.npz")), json.loads((out / "facts.json").read_text())
    return result


@pytest.fixture(scope="module")
def arrays(answers):
    return {package: arrays for package, (arrays, _) in answers.items()}


@pytest.fixture(params=SIDES)
def facts(answers, request):
    """The facts of either side: a test that asks for them runs for both."""
    return answers[request.param][1]


def distance(value, reference):
    assert value.shape == reference.shape
    return np.linalg.norm(np.ravel(value - reference)) / np.linalg.norm(np.ravel(reference))


@pytest.mark.parametrize("model", MODELS)
def test_port_computes_what_the_reference_computes(arrays, model):
    reference = {key: value for key, value in arrays["torch_ref"].items() if key.startswith(f"{model}/")}
    assert len(reference) > 30
    for key, value in reference.items():
        assert np.linalg.norm(value) > 1e-3, f"{key} is almost zero and would show nothing"
        error = distance(arrays["paddle_impl"][key], value)
        assert error <= ROUNDING, f"{key}: relative distance {error:.2e}, allowed {ROUNDING:.0e}"


def test_both_sides_have_the_same_keys(arrays):
    assert list(arrays["torch_ref"]) == list(arrays["paddle_impl"])


def test_one_wrong_epsilon_in_one_block_would_be_seen(arrays):
    assert distance(arrays["paddle_impl"]["wrong_epsilon/eval"], arrays["torch_ref"]["odd/eval"]) > 100 * ROUNDING


@pytest.mark.parametrize("package", SIDES)
def test_evaluation_of_a_distilled_model_is_the_mean_of_its_heads(arrays, package):
    values = arrays[package]
    assert not np.allclose(values["odd_distilled/train/0"], values["odd_distilled/train/1"])
    mean = (values["odd_distilled/train/0"] + values["odd_distilled/train/1"]) / 2
    np.testing.assert_array_equal(values["odd_distilled/eval"], mean)


@pytest.mark.parametrize("package", SIDES)
def test_features_are_the_normalised_class_tokens(arrays, package):
    plain, distilled = arrays[package]["odd/features"], arrays[package]["odd_distilled/features"]
    assert plain.shape == (3, 1, 64)
    assert distilled.shape == (3, 2, 64)
    np.testing.assert_array_equal(arrays[package]["features/eval"], arrays[package]["features/features"][:, 0])


@pytest.mark.parametrize("package", SIDES)
def test_without_dropout_training_and_evaluation_agree(arrays, package):
    np.testing.assert_array_equal(arrays[package]["pit_ti/eval"], arrays[package]["pit_ti/train/0"])


# Measured; the paper's table rounds them to 4.9, 10.6, 23.5 and 73.8 million.
PARAMETERS = {
    "pit_ti": 4_847_272,
    "pit_xs": 10_618_888,
    "pit_s": 23_461_912,
    "pit_b": 73_764_840,
    "pit_ti_distilled": 5_104_336,
    "pit_xs_distilled": 11_003_984,
    "pit_s_distilled": 24_039_056,
    "pit_b_distilled": 74_790_096,
}


def test_parameter_counts(facts):
    assert {name: sum(map(math.prod, shapes.values())) for name, shapes in facts["shapes"].items()} == PARAMETERS


def test_grids_and_widths_of_the_variants(facts):
    stem = {name: (shapes["pos_embed"], shapes["patch_embed.conv.weight"]) for name, shapes in facts["shapes"].items()}
    assert stem["pit_ti"] == ([1, 64, 27, 27], [64, 3, 16, 16])
    assert stem["pit_b_distilled"] == ([1, 256, 31, 31], [256, 3, 14, 14])
    assert facts["shapes"]["pit_s"]["head.weight"] == [1000, 576]
    assert facts["shapes"]["pit_s"]["pools.1.conv.weight"] == [576, 1, 3, 3]


def test_state_dicts_modules_and_hyper_parameters_are_the_same_on_both_sides(answers):
    torch_facts, paddle_facts = (answers[package][1] for package in SIDES)
    for name, shapes in torch_facts["shapes"].items():
        assert list(shapes.items()) == list(paddle_facts["shapes"][name].items()), name
    for key in ("hyper_parameters", "modules"):
        assert torch_facts[key] == paddle_facts[key]


def test_parameters_have_the_default_dtype(facts):
    assert facts["dtypes"] == ["float64"]


def test_neither_side_imports_the_other_framework(answers):
    assert answers["torch_ref"][1]["foreign"] == ["torch"]
    assert answers["paddle_impl"][1]["foreign"] == ["paddle"]


def test_packages_import_no_framework(run_python):
    code = "import sys, torch_ref, paddle_impl; print({'torch', 'paddle', 'timm', 'torchvision'} & set(sys.modules))"
    assert run_python(code).stdout.strip() == "set()"


def test_drop_path_rates_are_the_official_ones(facts):
    """Block i of n: rate * i / n. timm's last block would have the full rate, 0.12."""
    paths = [name.removesuffix("1").removesuffix("2") for name, _ in facts["drop_path_rates"]]
    rates = [rate for _, rate in facts["drop_path_rates"]]
    assert paths[0] == "transformers.0.blocks.0.drop_path"
    assert rates == pytest.approx([0.12 * i / 12 for i in range(12) for _ in (1, 2)], rel=1e-15)
    assert max(rates) == pytest.approx(0.11)


def test_drop_path_drops_whole_samples(facts):
    results = {name: np.array(values) for name, values in facts["drop_path"].items()}
    for name, values in results.items():
        assert (values == values[:, :1, :1]).all(), f"{name}: a sample was dropped in part"
        if name.endswith("eval") or name.startswith("off"):
            assert (values == 1).all(), f"{name}: changed"
    kept = results["quarter/train"][:, 0, 0]
    assert set(kept) == {0.0, 1 / 0.75}
    assert set(results["unscaled/train"].ravel()) == {0.0, 1.0}
    assert (results["always/train"] == 0).all()
    # Six standard deviations of the number of survivors among 512, each with probability 0.75.
    assert abs((kept > 0).sum() - 512 * 0.75) < 6 * math.sqrt(512 * 0.75 * 0.25)


def test_dropout_rates_reach_their_modules(facts):
    rates = facts["dropout"]
    assert len(rates) == 1 + 12 * 4
    for name, rate in rates.items():
        assert rate == (0.2 if name.endswith(".attn_drop") else 0.1), name
    assert {name.rpartition(".")[2] for name in rates} == {"pos_drop", "attn_drop", "proj_drop", "drop1", "drop2"}


def test_no_weight_decay(facts):
    assert facts["no_weight_decay"] == ["cls_token", "pos_embed"]


@pytest.mark.parametrize("label", ["odd", "odd_distilled"])
def test_reset_classifier_replaces_every_head(facts, label):
    heads = ("head", "head_dist") if "distilled" in label else ("head",)
    expected = {}
    for head in heads:
        expected |= {f"{head}.weight": [[5, 64], "float32"], f"{head}.bias": [[5], "float32"]}
    answer = {key.partition("/")[2]: value for key, value in facts["heads"].items() if key.startswith(f"{label}/")}
    assert answer["reset"] == expected  # of the model's dtype, although the default is float64
    assert answer["logits"] == [2, 5]
    assert answer["is_head"]
    assert answer["none"] == {}
    assert answer["features"] == [2, 64]
    assert answer["num_classes"] == 0


def test_errors_say_what_and_both_values(facts):
    messages = facts["messages"]
    assert messages["input_size"].startswith("input of size (61, 47) for a model built with image_size=(47, 61)")
    assert messages["features_size"].startswith("input of size (48, 61) for a model built with image_size=(47, 61)")
    assert messages["image_below_patch"] == "image_size=(15, 224) is smaller than patch_size=16"
    assert "depth=(2, 6), heads=(2, 4, 8)" in messages["uneven_stages"]


def test_initial_distribution_is_the_official_one(facts):
    """Layers: uniform within 1 / sqrt(fan-in), weights and biases; tokens: normal with 0.02; LayerNorm: 1 and 0.

    Allowed are six standard deviations of each statistic.
    """
    for name, drawn in facts["initial"].items():
        size = drawn["size"]
        if drawn["kind"] in ("linear", "conv"):
            bound = drawn["fan_in"] ** -0.5
            variance, spread = bound**2 / 3, math.sqrt(0.8 / size)  # of a uniform variable: kurtosis 1.8
            assert drawn["largest"] <= bound, name
            assert drawn["largest"] > bound * (1 - 20 / size), name
        elif name in ("pos_embed", "cls_token"):
            variance, spread = 0.02**2, math.sqrt(2 / size)  # of a normal variable: kurtosis 3
        else:
            assert "norm" in name
            assert (drawn["mean"], drawn["variance"]) == (1.0 if name.endswith("weight") else 0.0, 0.0), name
            continue
        assert abs(drawn["variance"] / variance - 1) < 6 * spread, name
        assert abs(drawn["mean"]) < 6 * math.sqrt(variance / size), name


def test_fan_in_of_the_depthwise_convolution_counts_one_channel(facts):
    assert facts["initial"]["pools.0.conv.weight"]["fan_in"] == 9


def public_surface(source):
    """[(name, {method: arguments})] of the public classes and functions of a module, in order."""
    surface = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            surface.append((node.name, ast.unparse(node.args)))
        elif isinstance(node, ast.ClassDef):
            methods = {n.name: ast.unparse(n.args) for n in node.body if isinstance(n, ast.FunctionDef)}
            surface.append((node.name, methods))
    return surface


def test_the_two_files_are_twins(root):
    torch_surface, paddle_surface = (public_surface((root / package / "pit.py").read_text()) for package in SIDES)
    paddle_only = [entry for entry in paddle_surface if entry not in torch_surface]
    assert [name for name, _ in paddle_only] == ["torch_init"]
    assert [entry for entry in paddle_surface if entry not in paddle_only] == torch_surface
