"""Bugs in models of Paddle's own zoo are seen by what checks any pair, and the line that was changed is blamed."""

from pathlib import Path

import pytest

from align.case import ALONE, Case
from align.cases import inputs
from align.mutate.patch import read_catalogue, replaced_lines
from align.zoo import runner
from align.zoo.changes import changed, source

BUGS = {bug.id: bug for bug in read_catalogue(Path(__file__).with_name("bugs.yaml"))}
pytestmark = pytest.mark.slow  # each is a run of both sides
PAIRS = {
    "mobilenet": (
        "torchvision.models:mobilenet_v2(width_mult=0.25, num_classes=10)",
        "paddle.vision.models.mobilenetv2:mobilenet_v2(scale=0.25, num_classes=10)",
    ),
    "resnet": ("torchvision.models:resnet18(num_classes=10)", "paddle.vision.models.resnet:resnet18(num_classes=10)"),
    "densenet": (
        "torchvision.models:densenet121(num_classes=10)",
        "paddle.vision.models.densenet:densenet121(num_classes=10)",
    ),
}


def case_of(name: str, called: str) -> Case:
    reference, port = PAIRS[name]
    given = {"inputs": inputs.read(["3,3,64,64"]), "loss": None, "pair": True, "steps": ALONE}
    return Case(name=called, reference=reference, port=port, build={}, **given)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """By name, the outcomes of the bugs that are asked for and of the models without one, on one pair of processes."""
    folder = tmp_path_factory.mktemp("zoo")
    cases = [case_of(name, name) for name in PAIRS]
    cases += [changed(case_of(bug.case, bug.id), [bug], folder / "changed") for bug in BUGS.values()]
    return {outcome.name: outcome for outcome in runner.run(cases, folder, lambda *_: None).outcomes}


@pytest.mark.parametrize("name", PAIRS)
def test_without_a_bug_the_models_are_aligned(outcomes, name):
    assert outcomes[name].verdict == "aligned", outcomes[name]


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_seen_and_its_line_is_blamed(outcomes, bug):
    outcome, mutant = outcomes[bug], BUGS[bug]
    assert outcome.verdict == "misaligned", outcome
    found = outcome.divergence
    assert found, outcome.reason
    assert found["step"] == mutant.step
    places = [place for place in (found["port"], found["port"] and found["port"]["built"]) if place]
    text = source(mutant.file)
    spans = replaced_lines(mutant, text)
    if "at" in mutant.expect:  # the statement that is told instead, and no other
        spans = tuple((n, n) for n, line in enumerate(text.splitlines(), 1) if line.strip() == mutant.expect["at"])
        assert len(spans) == 1
    blamed = [(place["line"], place.get("end_line", place["line"])) for place in places]
    assert any(first <= end and line <= last for first, last in spans for line, end in blamed), (found, spans)
    assert all(Path(place["file"]).name.startswith("changed_") for place in places[:1]), found
