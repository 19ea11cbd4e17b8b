"""A golden recording of a case of one's own: frozen where torch is, judged where it cannot be imported."""

import json

import pytest

REFERENCE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
"""
PORT = """
from paddle import nn

def build():
    return nn.Sequential(nn.Conv2D(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
"""
CASES = """
[[case]]
name = "my_net"
reference = "my_reference.py:build"
port = "my_port.py:build"
inputs = ["2,3,16,16"]
"""


@pytest.fixture(scope="module")
def frozen(align, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    for name, text in (("my_reference.py", REFERENCE), ("my_port.py", PORT), ("my_cases.toml", CASES)):
        (folder / name).write_text(text)
    result = align("freeze", "--case", "my_cases.toml:my_net", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("golden/my_net.align: ")
    return folder / "golden" / "my_net.align"


@pytest.fixture
def gate(align, frozen, tmp_path):
    """Judge a port where importing torch raises; the CompletedProcess and what `verdict.json` says, if it is there."""

    def call(*arguments, port=PORT, cases=CASES, reference=REFERENCE):
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").write_text("raise ModuleNotFoundError('not here', name='torch')\n")
        for name, text in (("my_port.py", port), ("my_cases.toml", cases), ("my_reference.py", reference)):
            (tmp_path / name).write_text(text)
        result = align("run", "--against", frozen, *arguments, "--out", "out", cwd=tmp_path)
        assert "Traceback" not in result.stderr
        told = tmp_path / "out" / "verdict.json"
        return result, json.loads(told.read_text()) if told.exists() else None

    return call


def test_the_right_port_passes(gate):
    result, told = gate("--case", "my_cases.toml:my_net")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (told["verdict"], [step["step"] for step in told["steps"]]) == ("aligned", ["forward", "bp_align"])


def test_a_wrong_one_is_caught_with_its_line(gate):
    result, told = gate("--case", "my_cases.toml:my_net", port=PORT.replace("nn.GELU()", "nn.GELU(True)"))
    assert result.returncode == 1
    found = told["first_divergence"]
    assert (told["blamed_step"], found["module"], found["port"]["line"]) == ("forward", "1", 5)
    assert found["what"] == "its output, on inputs that are the reference's"
    assert "numbers that stand for 3136 elements" in result.stdout


def test_a_case_that_is_not_built_in_must_be_named(gate):
    result, told = gate()
    assert (result.returncode, told) == (2, None)
    assert (
        "my_net.align: holds case my_net, which is not built in; say where it is: --case FILE:my_net" in result.stderr
    )


def test_a_case_that_has_changed_is_refused(gate):
    result, told = gate("--case", "my_cases.toml:my_net", cases=CASES.replace("2,3,16,16", "4,3,16,16"))
    assert (result.returncode, told) == (4, None)
    assert "case my_net was frozen with inputs" in result.stderr


def test_a_reference_that_has_changed_is_refused(gate):
    result, told = gate("--case", "my_cases.toml:my_net", reference=REFERENCE.replace("GELU", "ReLU"))
    assert (result.returncode, told) == (4, None)
    assert "my_reference.py of the reference has changed since" in result.stderr
