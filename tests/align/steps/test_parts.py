"""Which part of a long step shows that rows are wrong, and why; no framework is needed to tell."""

import pytest

from align import steps
from align.cases import find

CASE = find("pit_probe")


@pytest.mark.parametrize(
    ("step", "rows", "part"),
    [
        ("data", ["a/resized", "a/cropped", "b/resized", "c/resized"], ["a", "b"]),
        ("data", ["a/train/0/box", "a/train/1/flipped"], ["a/train/0", "a/train/1"]),
        ("data", [f"mixup/{draw}/images" for draw in range(9)], ["mixup/0", "mixup/1"]),
        ("data", ["sampler/7x2/0/3", "sampler/7x2/1/3"], ["sampler/7x2"]),
        ("data", ["folder/classes/files", "folder/refused"], ["folder"]),
        ("data", ["operations/Invert/0/augmented", "operations/Rotate/1/augmented"], None),
        ("optim", ["adamw/norm.bias/param/2", "adamw/norm.bias/param/1"], ["adamw:1"]),
        ("optim", ["norm.bias/exp_avg/3", "long/norm.bias/param/1000"], [":3"]),
        ("optim", ["long/norm.bias/param/1000"], ["long:1000"]),
        ("optim", ["resumed/norm.bias/param/10"], ["resumed:10"]),
        ("optim", ["scheduled/lr"], ["scheduled:10"]),
        ("optim", ["lr/recipe", "default/build_optimizer/lr"], ["lr/recipe", "default/build_optimizer/lr"]),
        ("forward", ["logits"], None),
    ],
)
def test_no_more_is_run_again_than_shows_it(step, rows, part):
    found = steps.narrowed(step, rows, CASE)
    if step == "data" and part is None:
        part = ["operations/Invert/0", "operations/Rotate/1"]
    assert found == part


def test_without_rows_all_is_run_again():
    assert steps.narrowed("data", None, CASE) is None


@pytest.mark.parametrize(
    ("step", "row", "early"),
    [
        ("train_align", "loop/loss", True),
        ("train_align", "random/grad/norm.bias", True),
        ("train_align", "loss", False),
        ("train_align", "param/norm.bias", False),
        ("optim", "adamw/norm.bias/param/1", True),
        ("optim", "long/norm.bias/param/1000", False),
    ],
)
def test_the_early_rows_are_those_of_the_quick_part(step, row, early):
    assert steps.early(step)(row) is early


def test_short_steps_have_no_early_part():
    assert steps.early("forward") is None
