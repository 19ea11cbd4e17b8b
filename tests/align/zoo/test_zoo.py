"""`align zoo`: pair after pair on one pair of processes, with a page that says what was seen."""

import json

import pytest

QUICK = ["linear", "batch_norm2d", "lstm", "multihead_attention", "hardsigmoid", "scheduler_cosine", "optimizer_adamw"]

RESNET = """
[[case]]
name = "resnet18_small"
reference = "torchvision.models:resnet18(num_classes=10)"
port = "paddle.vision.models:resnet18(num_classes=10)"
inputs = ["3,3,33,33"]
"""


@pytest.fixture(scope="module")
def zoo(align, tmp_path_factory):
    """A few layers, twice: what the first run printed, what the second did, and the page of the second."""
    folder = tmp_path_factory.mktemp("zoo")
    arguments = ["zoo", "--only", *QUICK, "--out", folder / "out", "--json"]
    first = align(*arguments)
    second = align(*arguments, "--markdown", folder / "zoo.md")
    return first, second, (folder / "zoo.md").read_text()


def outcomes(result):
    return {outcome["name"]: outcome for outcome in json.loads(result.stdout)}


def test_layers_are_aligned_forwards_and_backwards(zoo):
    found = outcomes(zoo[0])
    assert found.keys() == set(QUICK)
    for name in set(QUICK) - {"hardsigmoid"}:
        assert found[name]["verdict"] == "aligned", found[name]
        assert "forward" in found[name]["ratios"]
    assert found["batch_norm2d"]["noted"] > 0  # the running variance, an inherent difference
    assert found["multihead_attention"]["matched_by"] == {"value": 4}


def test_a_difference_is_placed_explained_and_proven_by_its_change(zoo):
    first = zoo[0]
    found = outcomes(first)["hardsigmoid"]
    assert first.returncode == 1
    assert found["verdict"] == "misaligned"
    assert "slope 0.1666667" in found["divergence"]["cause"]["text"]
    assert found["why"] == "its slope is 0.1666667, not 1 / 6"
    assert found["with_change"] == "aligned"


def test_what_was_done_is_not_done_again(zoo):
    first, second, _ = zoo
    assert first.stdout == second.stdout


def test_the_page_has_a_row_a_pair_and_says_how_it_was_made(zoo):
    page = zoo[2]
    for name in QUICK:
        assert f"| {name} " in page
    assert "align zoo --only linear" in page
    assert "paddle 3." in page
    assert "torch 2." in page
    assert "| Layers, losses and functions | 5 | 4 | 1 | 0 | 0 |" in page
    assert "- **hardsigmoid**: " in page


@pytest.mark.slow  # the page has 35 of them
def test_a_model_of_the_vision_zoo_needs_no_mapping_file(align, tmp_path):
    pairs = tmp_path / "pairs.toml"
    pairs.write_text(RESNET)
    result = align("zoo", "--pairs", pairs, "--out", tmp_path / "out", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    assert outcomes(result)["resnet18_small"]["matched_by"] == {"name": 102}


def test_a_name_that_is_in_no_file_is_an_error(align, tmp_path):
    result = align("zoo", "--only", "no_such_layer*", "--out", tmp_path)
    assert result.returncode == 2
    assert "--only no_such_layer*: no such case in " in result.stderr


@pytest.mark.slow
def test_the_whole_zoo_is_aligned_or_explained(align, tmp_path):
    result = align("zoo", "--out", tmp_path, "--json")
    found = outcomes(result)
    unexplained = {name: o for name, o in found.items() if "aligned" not in (o["verdict"], o["with_change"])}
    assert all(o["why"] for o in unexplained.values()), unexplained
    assert sum(o["verdict"] == "aligned" for o in found.values()) > 200
