"""From recordings to a verdict: what stands whatever happens to the search for the place."""

import json

import pytest

from align import gate
from align.cases.inputs import read
from align.cases.pair import pair
from align.compare import waivers
from align.errors import UsageError
from align.pipeline import Options
from align.running import Running

MODEL = "from {framework} import nn\n\n\ndef net():\n    return nn.Sequential(nn.Linear(3, 4), nn.{activation}())\n"


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """The verdict on a wrong pair, and the folder of its reports."""
    folder = tmp_path_factory.mktemp("gate")
    for framework, activation in (("torch", "Tanh"), ("paddle", "Sigmoid")):
        (folder / f"{framework}_net.py").write_text(MODEL.format(framework=framework, activation=activation))
    case = pair(f"{folder}/torch_net.py:net", f"{folder}/paddle_net.py:net", read(["2,3"]), "gate")
    with Running() as running:

        def judged():
            options = Options(case, folder / "out", ("forward",))
            rules = waivers.read(None, None)
            return gate.reported(options, rules, processes=running.of(options), logs=False), options.out

        yield judged


def test_it_says_where(wrong):
    result, _ = wrong()
    assert result.verdict == "misaligned"
    assert result.divergences[0].module == "1"
    assert result.notes == ()


@pytest.mark.parametrize("error", [UsageError("the port ended"), ZeroDivisionError("division by zero")])
def test_a_search_that_fails_leaves_the_verdict(wrong, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(gate, "divergences", fails)
    result, folder = wrong()
    assert result.exit_code == 1
    assert result.notes == (f"the search for the place failed, the verdict stands: {type(error).__name__}: {error}",)
    told = json.loads((folder / "verdict.json").read_text())
    assert (told["verdict"], told["notes"], told["divergences"]) == ("misaligned", [*result.notes], [])
