"""The zoo's page: every pair has a row, every difference its place and its reason, and nothing is added up wrongly."""

import pytest

from align.case import ALONE, Case, Input
from align.report.zoo import found, page
from align.zoo.runner import Outcome

PORT = {"file": "/x/site-packages/paddle/vision/models/alexnet.py", "line": 145, "built": None}
BLAMED = {"module": "_drop1", "what": "its output", "port": PORT, "reference": None, "cause": {"text": "its mode"}}
OUTCOMES = [
    Outcome("vgg11", "aligned", {"forward": 0.5, "bp_align": 1.25}, matched_by={"name": 22}, noted=3, seconds=12.4),
    Outcome(
        "alexnet",
        "misaligned",
        matched_by={"order": 2, "value": 14},
        divergence=BLAMED,
        why="mode",
        with_change="aligned",
    ),
    Outcome("relu", "aligned", {"forward": 0.0, "bp_align": float("inf")}),
    Outcome("asgd", "misaligned", {"forward": 1e9}, reason="output: far off", why="two algorithms"),
    Outcome("crash", None, error="the paddle process ended"),
]
VISION = "paddle.vision.models:"
PORTS = [f"{VISION}vgg11", f"{VISION}alexnet", "paddle.nn:ReLU()", "paddle.nn:X(a|b)", "paddle.nn:Y"]


@pytest.fixture
def text():
    one = {"reference": "torch:x", "build": {}, "inputs": (Input("0", (2,)),), "loss": None, "steps": ALONE}
    cases = [Case(name=outcome.name, port=port, **one) for outcome, port in zip(OUTCOMES, PORTS, strict=True)]
    return page(OUTCOMES, cases, {"python": "3.11", "torch": "2.0"}, "align zoo --only '*'")


def test_every_pair_has_one_row_of_as_many_cells_as_its_head(text):
    table = [line for line in text.splitlines() if line.startswith("|")]
    for outcome in OUTCOMES:
        assert sum(line.startswith(f"| {outcome.name} ") for line in table) == 1
    heads = 0
    for line in table:
        cells = line.replace("\\|", "").count("|")
        heads = cells if line.startswith(("| pair", "| | pairs")) else heads
        assert cells == heads


def test_sums_are_of_the_rows(text):
    assert "| Models | 2 | 1 | 1 | 0 | 0 |" in text
    assert "| Layers, losses and functions | 3 | 1 | 0 | 1 | 1 |" in text
    assert "2 pairs have parameters, 38 tensors in all: 22 by name, 2 by order, 14 by value. In 1 of them" in text


def test_a_difference_is_told_with_place_reason_and_proof(text):
    assert (
        "- **alexnet**: _drop1: its output at paddle/vision/models/alexnet.py:145 (its mode). Because: mode. "
        "With that changed: **aligned**." in text
    )
    assert "- **asgd**: output: far off. Because: two algorithms." in text
    assert "- **crash**: the paddle process ended." in text
    assert "- **vgg11**" not in text


def test_the_command_and_the_versions_stand_on_the_page(text):
    assert "    align zoo --only '*'" in text
    assert "Versions: python 3.11, torch 2.0." in text


def test_where_nothing_was_located_the_first_bad_row_stands():
    assert found(OUTCOMES[3]) == "output: far off"
    assert found(OUTCOMES[4]) == "the paddle process ended"
