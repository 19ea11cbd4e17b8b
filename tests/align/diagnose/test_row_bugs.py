"""Bugs in the steps without a model, in real processes: the cause that their rows prove."""

from pathlib import Path

import pytest

from align.cases import find
from align.mutate.patch import read_catalogue
from align.mutate.runner import Runner
from align.pipeline import Options

BUGS = {mutant.id: mutant for mutant in read_catalogue(Path(__file__).parent / "row_bugs.yaml")}
QUICK = {"square-left-as-it-is"}  # the others are run with --slow
STEPS = ("data", "weights", "init", "forward", "metric")


@pytest.fixture(scope="module")
def runners(tmp_path_factory):
    """One runner a step, so that only what a bug touches is recorded."""
    made = {}

    def runner(step):
        if step not in made:
            folder = tmp_path_factory.mktemp(f"causes-{step}")
            steps = tuple(name for name in STEPS if name == step or (step, name) == ("metric", "forward"))
            made[step] = Runner(Options(find("pit_probe"), folder, steps), folder).__enter__()
        return made[step]

    yield runner
    for one in made.values():
        one.__exit__(None, None, None)


@pytest.mark.parametrize("bug", [pytest.param(b, marks=[] if b in QUICK else pytest.mark.slow) for b in BUGS])
def test_the_cause_is_proven_from_rows(runners, bug):
    mutant = BUGS[bug]
    outcome = runners(mutant.step).run(mutant)
    assert outcome.error is None
    assert outcome.blamed_step == mutant.step
    assert outcome.cause == mutant.expect["cause"], outcome.divergence
    if mutant.expect.get("line"):
        assert outcome.line, outcome.divergence["port"]
    assert outcome.divergence["cause"]["text"].endswith("explains 100.0 %")
