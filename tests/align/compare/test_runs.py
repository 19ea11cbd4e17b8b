"""Which recordings may be compared at all, and what a step that raised leaves."""

from dataclasses import replace

import numpy as np
import pytest

from align.compare.runs import RAISED, compare_runs
from align.compare.waivers import Exceptions
from align.errors import Incomparable


@pytest.mark.parametrize(
    ("field", "value"),
    [("case", "pit_s"), ("seed", 2), ("images", "b"), ("weights", "w.safetensors 12"), ("plan", "q")],
)
@pytest.mark.parametrize("recording", ["paddle-float32", "torch-float64", "paddle-float64"])
def test_other_sources_are_incomparable_and_the_field_is_named(bench, field, value, recording):
    bench.sources = {recording: {field: value}}
    with pytest.raises(
        Incomparable, match=rf"{recording.replace('-', '-cpu-')}-\w+ and torch-.* different {field}: "
    ) as caught:
        bench.verdict()
    assert caught.value.exit_code == 4
    assert str(value) in str(caught.value)


def test_what_explains_most_is_named_first(bench):
    bench.sources = {"paddle-float32": {"plan": "q", "weights": "other", "seed": 7}}
    with pytest.raises(Incomparable, match="different seed: 7 against 1"):
        bench.verdict()


def test_the_two_sides_in_different_working_types(bench):
    runs = bench.runs()
    bench.dtype = "float16"
    other = bench.runs()
    with pytest.raises(Incomparable, match="recorded in float16, the reference in float32"):
        replace(runs, port=other.port).check_comparable()


def test_a_port_that_raised_is_red_and_the_row_says_what(bench):
    bench.failures = {"forward": "ValueError: wrong shape at port.py:7"}
    bench.truth["y"] = np.arange(1.0, 100)
    bench.port["y"] = bench.port_twin["y"] = None
    verdict = bench.verdict()
    assert (verdict.verdict, verdict.blamed_step) == ("misaligned", "forward")
    assert [(row.name, row.verdict) for row in verdict.rows] == [(RAISED, "misaligned"), ("x", "aligned")]
    assert verdict.rows[0].reason == "the port raised ValueError: wrong shape at port.py:7"


def test_a_step_of_one_side_only_is_missing_throughout(bench):
    runs = bench.runs()
    del runs.port.manifest.steps["forward"]
    verdict = compare_runs(runs, Exceptions())
    assert [(row.name, row.verdict) for row in verdict.rows] == [("x", "missing")]
    assert verdict.exit_code == 1
