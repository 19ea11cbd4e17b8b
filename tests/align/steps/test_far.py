"""Inputs far from zero: where an activation is cut off, what leaves that out is seen, and named."""

import json

import pytest

REFERENCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6()
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.act(self.norm(self.conv(x))).mean((2, 3)))

class Narrow(Net):
    def forward(self, x):
        if x.abs().max() > 12:
            raise ValueError("out of range")
        return super().forward(x)
"""
PORT = """
import paddle
from paddle import nn

class Net(nn.Layer):
    def __init__(self, act="ReLU6"):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2D(3, 8, 3), nn.BatchNorm2D(8), getattr(nn, act)()
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.act(self.norm(self.conv(x))).mean([2, 3]))
"""


@pytest.fixture
def check(run_python, tmp_path):
    (tmp_path / "reference.py").write_text(REFERENCE)
    (tmp_path / "port.py").write_text(PORT)

    def run(reference, port):
        code = "import sys; from align.cli import main; sys.exit(main(sys.argv[1:]))"
        paths = f"{tmp_path}/reference.py:{reference}", f"{tmp_path}/port.py:{port}"
        asked = ("check", *paths, "--input", "3,3,16,20", "--step", "forward", "--out", tmp_path / "out", "--json")
        result = run_python(code, *asked, check=False)
        rows = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
        return result, {row["name"]: row["verdict"] for row in map(json.loads, rows)}

    return run


def test_a_relu_for_a_relu6(check):
    result, rows = check("Net", 'Net("ReLU")')
    assert result.returncode == 1, result.stdout + result.stderr
    assert (rows["output"], rows["far/output"]) == ("aligned", "misaligned")
    found = json.loads(result.stdout)["first_divergence"]
    assert found["module"] == "act"
    assert "limit 6" in found["cause"]["text"]


@pytest.mark.parametrize(("reference", "there"), [("Net", True), ("Narrow", False)])
def test_a_right_port_is_aligned_and_what_the_reference_refuses_is_left_out(check, reference, there):
    result, rows = check(reference, "Net")
    assert result.returncode == 0, result.stdout + result.stderr
    assert ("far/output" in rows) is there
