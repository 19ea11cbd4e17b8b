"""The training run of `train_align`: what the reference records of itself beside what is compared."""

from dataclasses import replace

import pytest

from align.cases import find
from align.pipeline import Options, Recorder
from align.steps.train_align import OTHER_SEEDS


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The reference's run of three updates, in both types."""
    case = find("pit_probe")
    case = replace(case, rates={}, training=replace(case.training, iterations=3, warmup_iterations=1))
    options = Options(case, tmp_path_factory.mktemp("train"), ("train_align",), sides=("torch",))
    with Recorder(options, lambda *_: None) as recorder:
        yield recorder.run()


def test_other_seeds_reach_other_accuracies(recordings):
    step = recordings["torch", "float32"].step("train_align")
    found = step.entries["acc_test"].facts["other_seeds"]
    assert len(found) == OTHER_SEEDS
    assert all(0 <= accuracy <= 1 for accuracy in found)
    assert len({float(step["acc_test"]), *found}) > 1


def test_they_are_run_once(recordings):
    assert recordings["torch", "float64"].step("train_align").entries["acc_test"].facts is None
