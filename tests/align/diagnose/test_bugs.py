"""Bugs put into the port by hand, in real processes: the cause that is proven, and the line that it is blamed on."""

from pathlib import Path

import pytest

from align.cases import find
from align.mutate.patch import read_catalogue
from align.mutate.runner import Runner
from align.pipeline import Options

BUGS = {mutant.id: mutant for mutant in read_catalogue(Path(__file__).parent / "bugs.yaml")}

# The others are run with --slow: each starts a paddle process.
QUICK = {"one-norm-epsilon", "attention-residual-missing"}


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("causes")
    with Runner(Options(find("pit_probe"), folder, ("forward", "bp_align")), folder) as made:
        yield made


@pytest.mark.parametrize("bug", [pytest.param(b, marks=[] if b in QUICK else pytest.mark.slow) for b in BUGS])
def test_the_cause_is_proven(runner, bug):
    mutant = BUGS[bug]
    outcome = runner.run(mutant)
    assert outcome.error is None
    assert outcome.blamed_step == mutant.step
    assert outcome.divergence["module"] == mutant.expect["module"]
    assert outcome.line, outcome.divergence["port"]
    assert outcome.cause == mutant.expect.get("cause"), outcome.divergence["cause"]
    if outcome.cause:
        assert outcome.divergence["cause"]["explained"] > 0.99
        assert outcome.divergence["cause"]["text"].endswith(" %")


def test_both_values_are_told_and_the_defining_line_is_blamed(runner):
    found = runner.run(BUGS["one-norm-epsilon"]).divergence
    assert found["cause"]["text"] == ("LayerNorm epsilon 1e-05 in the port, 1e-06 in the reference: explains 100.0 %")
    assert found["cause"]["change"] == "epsilon=1e-06"
    assert "num_heads == 8" in found["port"]["code"]
    attribute = runner.run(BUGS["attention-scale-attribute"]).divergence
    assert attribute["port"]["code"] == "self.scale = dim**-0.5"
    assert attribute["cause"]["text"].startswith("Attention scale 0.25 in the port, 0.353553390593 in the reference")
