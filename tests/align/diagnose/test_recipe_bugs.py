"""Bugs put into the port's losses, in real processes: the cause that is proven, and the line that is blamed."""

from pathlib import Path

import pytest

from align.cases import find
from align.mutate.patch import read_catalogue
from align.mutate.runner import Runner
from align.pipeline import Options

BUGS = {mutant.id: mutant for mutant in read_catalogue(Path(__file__).parent / "recipe_bugs.yaml")}
QUICK = {"smoothing-over-the-other-classes"}  # the others are run with --slow


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe-causes")
    with Runner(Options(find("pit_probe"), folder, ("loss",)), folder) as made:
        yield made


@pytest.mark.parametrize("bug", [pytest.param(b, marks=[] if b in QUICK else pytest.mark.slow) for b in BUGS])
def test_the_cause_and_the_line_are_found(runner, bug):
    mutant = BUGS[bug]
    outcome = runner.run(mutant)
    assert outcome.error is None
    assert outcome.blamed_step == mutant.step
    assert outcome.line, outcome.divergence["port"]
    assert outcome.cause == mutant.expect["cause"], outcome.divergence["cause"]
