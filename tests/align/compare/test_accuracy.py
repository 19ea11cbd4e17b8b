"""The final accuracy beside the spread of the reference's own seeds."""

import numpy as np
import pytest

from align.compare.accuracy import FinalAccuracy
from align.report import json as json_report
from align.report import summary
from align.report.console import print_verdict
from tests.align.compare.conftest import Tensor


@pytest.fixture
def trained(bench):
    """A correct pair that trained to an accuracy of 0.5, and reached 0.25 and 0.75 with other seeds."""
    bench.step = "train_align"
    bench.truth["acc_test"] = np.float64(0.5)
    bench.reference["acc_test"] = Tensor(np.float64(0.5), "metric", facts={"other_seeds": [0.25, 0.75]})
    bench.port["acc_test"] = Tensor(np.float64(0.5), "metric")
    bench.kinds["acc_test"] = "metric"
    return bench


def test_it_is_told_with_both_ends_of_the_range(trained):
    verdict = trained.verdict()
    assert verdict.accuracy == FinalAccuracy(0.5, 0.5, (0.25, 0.75))
    assert str(verdict.accuracy) == (
        "final accuracy 50.0% in the port, 50.0% in the reference, which reaches 25.0% to 75.0% with 2 other seeds"
    )


def test_it_is_not_judged(trained):
    """An accuracy far outside of the spread is red by its own row alone, and one inside it is no excuse."""
    trained.reference["acc_test"].facts["other_seeds"] = [0.9, 0.91]
    assert trained.verdict().verdict == "aligned"
    trained.port["acc_test"] = Tensor(np.float64(0.55), "metric")
    trained.port_twin["acc_test"] = Tensor(np.float64(0.55), "metric")
    trained.reference["acc_test"].facts["other_seeds"] = [0.4, 0.6]
    assert trained.verdict().verdict == "misaligned"


def test_reports_show_it(trained, capsys):
    verdict = trained.verdict()
    print_verdict(verdict, "out")
    assert str(verdict.accuracy) in capsys.readouterr().out
    told = json_report.verdict(verdict)
    assert told["accuracy"]["other_seeds"] == (0.25, 0.75)
    assert "reaches 25.0% to 75.0% with 2 other seeds" in summary.markdown(told, json_report.rows_of(verdict))


def test_recordings_without_other_seeds_tell_both_sides(trained):
    trained.reference["acc_test"].facts = None
    assert str(trained.verdict().accuracy) == "final accuracy 50.0% in the port, 50.0% in the reference"


def test_nothing_is_told_where_nothing_was_trained(bench, capsys):
    verdict = bench.verdict()
    print_verdict(verdict, "out")
    assert verdict.accuracy is None
    assert "final accuracy" not in capsys.readouterr().out
