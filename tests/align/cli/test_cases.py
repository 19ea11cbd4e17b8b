"""Cases of one's own on the command line: with probes, with a recipe, in two places, and from another package."""

import argparse
import json
import re
import shutil

import pytest

from align.cli import run

CASES = """
[[case]]
name = "alone"
reference = "torch_toy/net.py:Net"
port = "paddle_toy/net.py:Net"
inputs = ["x=8,6", "flags.keep=8,1:bool"]
probes = ["normed"]
summary = "models alone"

[[case]]
name = "trained"
reference = "torch_toy.net:Net"
port = "paddle_toy.net:Net"
inputs = ["x=8,6", "flags.keep=8,1:bool"]
classes = 12
loss = { smoothing = 0.2 }
optimizer = { lr = 1e-3, weight_decay = 0.1, eps = 1e-8 }
iterations = 3
steps = ["forward", "bp_align"]
"""
NET = """
from align import probe
from {framework} import nn


class Net(nn.{base}):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 12)

    def forward(self, x, flags):
        return self.head(probe("normed", self.norm(x) * 2) * flags["keep"].{cast}(x.dtype))
"""
SIDES = {"torch": ("torch_ref", "Module", "to"), "paddle": ("paddle_impl", "Layer", "astype")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Cases, and beside them a package a side, whose losses and optimizers are those of the built-in cases."""
    path = tmp_path_factory.mktemp("own")
    (path / "my.toml").write_text(CASES)
    for side, (package, base, cast) in SIDES.items():
        own = path / f"{side}_toy"
        own.mkdir()
        (own / "__init__.py").touch()
        (own / "net.py").write_text(NET.format(framework=side, base=base, cast=cast))
        for twin in ("losses", "optim"):
            (own / f"{twin}.py").write_text(f"from {package}.{twin} import *\n")
    return path


def names(out):
    return {json.loads(line)["name"] for line in (out / "rows.jsonl").read_text().splitlines()}


def test_a_file_is_listed(align, folder):
    result = align("cases", folder / "my.toml")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["alone    models alone", "trained  torch_toy.net:Net and paddle_toy.net:Net"]


def test_a_recipe_of_ones_own_package(align, folder, tmp_path):
    """Found beside the file of cases, from any working directory."""
    result = align("run", "--case", folder / "my.toml:trained", "--out", tmp_path / "out", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert {"logits", "loss/2", "grad/head.weight", "param/norm.bias"} <= names(tmp_path / "out")


def test_a_twin_that_the_package_lacks(align, folder, tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(CASES.replace('["forward", "bp_align"]', '["forward", "metric"]'))
    for side in SIDES:
        shutil.copytree(folder / f"{side}_toy", tmp_path / f"{side}_toy")
    result = align("run", "--case", f"{file}:trained", "--out", tmp_path / "out")
    assert result.returncode == 2, result.stdout + result.stderr
    # Whichever side comes first says it.
    told = r"there is no '(torch|paddle)_toy.metrics': write it, name another package with `(reference|port)_package`"
    assert re.search(told, result.stderr)


def test_recorded_in_two_places_and_compared_in_a_third(align, folder, tmp_path):
    """The probe that the case names is a result of its own; a port without it fails."""
    case = ("--case", folder / "my.toml:alone")
    assert align("record", *case, "--side", "torch", "--out", tmp_path / "there").returncode == 0
    shutil.copytree(tmp_path / "there", tmp_path / "here")
    ours = align("record", *case, "--side", "paddle", "--out", tmp_path / "here")
    assert ours.returncode == 0, ours.stderr
    result = align("diff", tmp_path / "there", tmp_path / "here", "--out", tmp_path / "reports")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "weights: 4 by name" in result.stdout
    assert "probed/normed" in names(tmp_path / "reports")

    shutil.copytree(folder, tmp_path / "blind")
    port = tmp_path / "blind/paddle_toy/net.py"
    port.write_text(port.read_text().replace('probe("normed"', 'probe("normal"'))
    words = ("--case", tmp_path / "blind/my.toml:alone", "--side", "paddle", "--out", tmp_path / "here")
    result = align("run", "forward", *words)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "missing forward: probed/normed: the port has no such tensor" in result.stdout


def test_another_package_brings_cases(align, tmp_path):
    """Through an entry point; one that cannot be loaded is told with its name."""
    (tmp_path / "brought.py").write_text(
        'from align.case import Case\nCASES = [Case("theirs", "a:A", "b:B", inputs=("2,3",), summary="of a package")]\n'
    )
    told = tmp_path / "brought-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    points = told / "entry_points.txt"
    points.write_text("[align.cases]\nbrought = brought:CASES\n")
    result = align("cases", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    assert any(line.split() == ["theirs", "of", "a", "package"] for line in result.stdout.splitlines())
    points.write_text("[align.cases]\nbrought = brought:NONE\n")
    result = align("cases", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 2
    assert "entry point brought:NONE of align.cases: AttributeError" in result.stderr


def test_without_a_case_it_is_pit_ti():
    parser = argparse.ArgumentParser()
    run.configure(parser)
    options = run.options_of(parser.parse_args([]))
    assert (options.case.name, options.roots) == ("pit_ti", ())
