"""A branch that rounding takes otherwise in one run is no fault of precision; a fault is there in every run."""

import pytest

from align.compare.chance import forgiven, imprecise
from align.compare.noise import Noise
from align.compare.rows import Judgement, Row
from align.compare.verdict import StepVerdict, Verdict

NOISE = Noise(1e-9, 2e-9)
RIGHT = Judgement(1e-18, 1e-18, 64e-18, "rms")


def row(name, precision, meaning=RIGHT, verdict="misaligned"):
    return Row("bp_align", name, "gradient", verdict, "precision", meaning=meaning, precision=precision, noise=NOISE)


def verdict(*rows, complaints=()):
    return Verdict("net", (StepVerdict("forward", ()), StepVerdict("bp_align", rows)), complaints=complaints)


FAR = Judgement(8e-7, 2e-9, 128e-9, "maximum")
NEAR = Judgement(4e-9, 2e-9, 128e-9, "maximum")


def test_only_a_run_that_is_imprecise_and_nothing_else_is_asked_again():
    assert imprecise(verdict(row("a", FAR), row("b", NEAR, verdict="aligned"))) == ("bp_align",)
    assert imprecise(verdict(row("b", NEAR, verdict="aligned"))) == ()
    assert imprecise(verdict(row("a", FAR), row("c", FAR, Judgement(1.0, 1e-18, 64e-18, "rms")))) == ()
    assert imprecise(verdict(row("a", FAR), row("missing", None, None, "missing"))) == ()
    assert imprecise(verdict(row("a", FAR), row("activation/x/out", None, None, "missing"))) == ("bp_align",)
    assert imprecise(verdict(row("a", FAR), complaints=("a waiver",))) == ()


@pytest.mark.parametrize("near", [True, False])
def test_what_lacks_inside_is_as_right_as_the_results(near):
    red = verdict(row("a", FAR), row("activation/x/out", None, None, "missing"))
    result = forgiven(red, {"bp_align": [{"a": (1e-9, 4e-9) if near else (4e-7, 8e-7)}]})
    assert [found.bad for found in result.rows] == [not near, not near]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([{"a": (1e-9, 4e-9)}, {"a": (4e-7, 8e-7)}], "noted"),
        ([{"a": (4e-7, 8e-7)}, {"a": (4e-7, 8e-7)}], "misaligned"),
        ([{"a": (1e-9, 8e-7)}], "misaligned"),
        ([{}], "misaligned"),
        ([], "misaligned"),
    ],
)
def test_one_run_within_the_limit_is_enough_and_none_is_not(runs, expected):
    result = forgiven(verdict(row("a", FAR), row("b", NEAR, verdict="aligned")), {"bp_align": runs})
    assert [row.verdict for row in result.rows] == [expected, "aligned"]
    if expected == "noted":
        assert "400x noise in one run, 2x with everything one ulp off" in result.rows[0].reason


PAIR = {
    "torch": """
import torch

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(6, 5)

    def forward(self, x):
        return super().forward(x)
""",
    "paddle": """
import paddle

class Always(paddle.nn.Linear):
    def __init__(self):
        super().__init__(6, 5)

    def forward(self, x):
        y = super().forward(x)
        return y * (1 + 1e-3) if x.dtype == paddle.float32 and self.off(x) else y

    def off(self, x):
        return True

class Once(Always):
    first = None

    def off(self, x):  # like a branch that only one run takes
        Once.first = Once.first or float(x.sum())
        return float(x.sum()) == Once.first
""",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    for side, text in PAIR.items():
        (folder / f"net_{side}.py").write_text(text)
    return folder


@pytest.mark.parametrize(("port", "expected"), [("Once", "aligned"), ("Always", "misaligned")])
def test_a_real_port_is_asked_again(checked, pair, port, expected):
    words = pair / "net_torch.py:Net", pair / f"net_paddle.py:{port}", "--input", "4,6", "--step", "forward"
    result = checked(*words)
    assert result.verdict == expected, [row for row in result.rows if row.bad]
    noted = [row.name for row in result.rows if "a branch that lies within rounding" in row.reason]
    assert bool(noted) is (port == "Once")
