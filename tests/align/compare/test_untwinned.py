"""A port whose framework has no float64 kernel: its working type is judged against the truth, and that is said."""

import pytest

from align.record.manifest import NO_KERNEL

WHY = "Paddle has no float64 kernel of 'some_kernel' for CPU"


@pytest.fixture
def untwinned(bench):
    bench.twin_failures = {"forward": f"{NO_KERNEL}{WHY}"}
    return bench


def test_a_right_port_is_aligned_and_the_verdict_says_how(untwinned):
    result = untwinned.verdict()
    (row,) = result.rows
    assert result.verdict == row.verdict == "aligned"
    assert row.meaning is None
    assert 0 < row.precision.ratio < 64
    assert result.notes == (f"forward: {WHY}; only the working type is judged",)


def test_what_float32_can_show_is_red(untwinned):
    untwinned.port = {"x": (untwinned.truth["x"] * (1 + 1e-4)).astype("float32")}
    row = untwinned.row()
    assert row.verdict == "misaligned"
    assert "precision" in row.reason


def test_a_port_that_raises_in_float64_for_another_reason_stays_red(bench):
    bench.twin_failures = {"forward": "TypeError: float32 expected"}
    result = bench.verdict()
    assert result.verdict == "misaligned"
    assert any("TypeError" in row.reason for row in result.rows)


def test_constant_rows_are_still_insensitive(untwinned):
    untwinned.truth["x"][:] = 3.0
    assert untwinned.row().verdict == "aligned"
    untwinned.truth["x"][:] = 0.0
    assert untwinned.row().verdict == "insensitive"
