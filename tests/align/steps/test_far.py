"""Inputs far from zero: where an activation is cut off, what leaves that out is seen, and named."""

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


@pytest.fixture(scope="module")
def verdict(checked, tmp_path_factory):
    """The verdict on `forward` of a pair, and that on each of its rows by name."""
    folder = tmp_path_factory.mktemp("far")
    (folder / "reference.py").write_text(REFERENCE)
    (folder / "port.py").write_text(PORT)

    def of(reference, port):
        paths = f"{folder}/reference.py:{reference}", f"{folder}/port.py:{port}"
        result = checked(*paths, "--input", "3,3,16,20", "--step", "forward")
        return result, {row.name: row.verdict for row in result.rows}

    return of


def test_a_relu_for_a_relu6(verdict):
    result, rows = verdict("Net", 'Net("ReLU")')
    assert result.verdict == "misaligned"
    assert (rows["output"], rows["far/output"]) == ("aligned", "misaligned")
    found = result.divergences[0]
    assert found.module == "act"
    assert "limit 6" in found.cause["text"]


@pytest.mark.parametrize(("reference", "there"), [("Net", True), ("Narrow", False)])
def test_a_right_port_is_aligned_and_what_the_reference_refuses_is_left_out(verdict, reference, there):
    result, rows = verdict(reference, "Net")
    assert result.verdict == "aligned", [row for row in result.rows if row.bad]
    assert ("far/output" in rows) is there
