"""No divergence on the correct pair, whatever the case: module by module on the reference's values, both ways."""

from dataclasses import replace

import pytest

from align.cases import CASES
from align.locate.search import replayed
from align.pipeline import Options, Recorder
from align.steps import REPLAYABLE

OFTEN = ("pit_probe",)  # the others take minutes and gigabytes


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in OFTEN else pytest.mark.slow) for n in CASES])
def test_a_clean_pair_has_no_divergence(tmp_path, name):
    case = CASES[name]
    if name.startswith("pit_b"):  # with the case's batch of 3 a side takes more than 10 GB
        case = replace(case, inputs=tuple(replace(item, shape=(1, *item.shape[1:])) for item in case.inputs))
    steps = [step for step in REPLAYABLE if step in case.steps]
    options = Options(case, tmp_path, tuple(steps))
    options.folder.mkdir(parents=True)
    with Recorder(options, lambda *_: None) as recorder:
        recorder.open_twins()
        assert {step: replayed(recorder, step) for step in steps} == {step: [] for step in steps}
