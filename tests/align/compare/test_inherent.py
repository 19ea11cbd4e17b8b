"""Differences that are inherent in Paddle: in force without a file, only where the formula holds, stale for no one."""

import numpy as np
import pytest

from align.compare.waivers import read

MOMENTUM, COUNT, CHANNELS = 0.1, 24, 5


def running_variance(bench, factor):
    """A training pass of a batch normalisation whose port has the reference's variance times `factor`."""
    rng = np.random.default_rng(4)
    before, variance = rng.uniform(0.5, 1.5, CHANNELS), rng.uniform(0.5, 1.5, CHANNELS)
    facts = {"momentum": MOMENTUM, "count": COUNT}

    def update(estimate):
        return MOMENTUM * (estimate - before)

    bench.truth = {"param/bn.running_var": before, "update/bn.running_var": update(variance)}
    bench.kinds = dict.fromkeys(bench.truth, "buffer")
    bench.facts = {"update/bn.running_var": facts}
    bench.port = {"update/bn.running_var": update(variance * factor).astype("float32")}
    bench.port_twin = {"update/bn.running_var": update(variance * factor)}
    return bench


def verdict_of(bench):
    result = bench.verdict(read(None, None))
    return next(row for row in result.rows if row.name == "update/bn.running_var"), result


def test_the_biased_variance_of_a_batch_is_noted(bench):
    row, result = verdict_of(running_variance(bench, (COUNT - 1) / COUNT))
    assert row.verdict == "noted"
    assert "biased" in row.reason
    assert result.complaints == ()


@pytest.mark.parametrize(
    "factor", [(COUNT - 2) / COUNT, COUNT / (COUNT - 1), 0.5], ids=["other count", "turned", "half"]
)
def test_any_other_factor_is_red(bench, factor):
    row, _ = verdict_of(running_variance(bench, factor))
    assert row.verdict == "misaligned"


def test_what_is_not_needed_is_no_complaint(bench):
    row, result = verdict_of(running_variance(bench, 1.0))
    assert row.verdict == "aligned"
    assert result.complaints == ()
