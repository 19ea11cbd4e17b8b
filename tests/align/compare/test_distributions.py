"""The judge of drawn values: what equal distributions may do, what each test sees, and how often it would be wrong."""

from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest

from align.compare.distributions import ENOUGH, FAMILY, judge_distributions
from align.compare.judge import Sources
from align.compare.runs import compare_runs
from align.compare.waivers import Exceptions
from align.record.store import Store, StoreWriter
from align.steps.init import statistics

STATISTICS = ("bounds", "mean", "std", "sample", "distinct")


def recorded(folder, samples, distinct=(64, 1)):
    """A step `init` of one side, from values by parameter."""
    folder.mkdir(parents=True, exist_ok=True)
    with StoreWriter(folder, "init") as writer:
        for name, values in samples.items():
            for statistic, array in {**statistics(values), "distinct": np.array(distinct)}.items():
                writer.add(f"{name}/{statistic}", array, "statistic")
    return Store(folder, "init")


@pytest.fixture
def judged(tmp_path):
    """Rows of a port's and a reference's values, both dictionaries by parameter."""

    def judge(port, reference, **more):
        stores = recorded(tmp_path / "torch", reference), recorded(tmp_path / "paddle", port, **more)
        return {row.name: row for row in judge_distributions("init", Sources(*stores, None, None, {}))}

    return judge


def uniform(seed, size=4096, bound=0.125, low=None):
    rng = np.random.default_rng([seed, size])
    return rng.uniform(-bound if low is None else low, bound, size).astype(np.float32)


def normal(seed, size=4096, std=0.02, cut=None):
    values = np.random.default_rng([seed, size]).standard_normal(2 * size)
    return (std * (values if cut is None else values[abs(values) < cut])[:size]).astype(np.float32)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_equal_distributions_are_aligned(judged, draw):
    rows = judged({"w": draw(1)}, {"w": draw(2)})
    assert list(rows) == [f"w/{statistic}" for statistic in STATISTICS]
    assert {row.verdict for row in rows.values()} == {"aligned"}
    assert all(0 <= row.meaning.excess < 0.9 for row in rows.values())
    assert rows["w/mean"].difference.max_abs == pytest.approx(rows["w/mean"].meaning.error)


WRONG = {
    "a range 1.2 times as wide": (uniform(1, bound=0.15), uniform(2), {"bounds", "std", "sample"}),
    "a bound without the sqrt(6)": (uniform(1, bound=0.125 * 6**0.5), uniform(2), {"bounds", "std", "sample"}),
    "a normal of the same deviation": (normal(1, std=0.125 / 3**0.5), uniform(2), {"bounds", "sample"}),
    "cut at two deviations": (normal(1, std=0.0227, cut=2), normal(2), {"bounds"}),
    "a mean of half a deviation": (uniform(1, bound=0.16, low=-0.09), uniform(2), {"mean", "bounds", "sample"}),
    "only one sign": (abs(uniform(1)), uniform(2), {"mean", "std", "bounds", "sample"}),
    "one value in fifty is zero": (
        np.where(np.arange(16384) % 50, normal(1, 16384), 0).astype(np.float32),
        normal(2, 16384),
        set(),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_each_test_sees(judged, what):
    """A row is red exactly where it is said; the last is too small for any of them, and is written down as such."""
    port, reference, seen = WRONG[what]
    rows = judged({"w": port}, {"w": reference})
    assert {name.removeprefix("w/") for name, row in rows.items() if row.bad} == seen
    for name in seen:
        row = rows[f"w/{name}"]
        assert row.meaning.error > row.meaning.limit
        assert "by chance" in row.reason
        assert "port" in row.reason


def test_the_reason_names_the_values(judged):
    rows = judged({"w": uniform(1, bound=0.15)}, {"w": uniform(2)})
    assert "of 4096 values of the port lie" in rows["w/bounds"].reason
    assert rows["w/std"].reason.startswith("standard deviation 0.08")
    assert "Kolmogorov-Smirnov distance" in rows["w/sample"].reason


class TestConstants:
    @pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
    def test_the_same_constant(self, judged, value):
        same = {"b": np.full(100, value, np.float32)}
        assert {row.verdict for row in judged(same, same).values()} == {"aligned"}

    def test_another_constant(self, judged):
        rows = judged({"b": np.full(100, 1.0000001, np.float32)}, {"b": np.ones(100, np.float32)})
        assert {name for name, row in rows.items() if row.bad} == {"b/bounds", "b/mean", "b/sample"}
        assert rows["b/bounds"].reason.startswith("must be equal: 2 of 2 elements differ")

    @pytest.mark.parametrize("size", [1, 8, 4096])
    @pytest.mark.parametrize("constant_side", ["port", "reference"])
    def test_a_constant_against_random_values_is_decisive(self, judged, size, constant_side):
        sides = {"port": {"b": uniform(1, max(size, 2))}, "reference": {"b": uniform(2, max(size, 2))}}
        sides[constant_side] = {"b": np.zeros(max(size, 2), np.float32)}
        rows = judged(sides["port"], sides["reference"])
        assert {"b/bounds", "b/std", "b/sample"} <= {name for name, row in rows.items() if row.bad}
        assert f"constant 0 in the {constant_side}" in rows["b/sample"].reason
        assert "random in [" in rows["b/sample"].reason


def test_too_few_values_are_told(judged):
    """64 values at the most: none could be far enough off."""
    rows = judged({"s": uniform(1, 16)}, {"s": uniform(2, 16)})
    assert {name: row.verdict for name, row in rows.items()} == {
        "s/bounds": "insensitive",
        "s/mean": "insensitive",
        "s/std": "insensitive",
        "s/sample": "insensitive",
        "s/distinct": "aligned",
    }
    assert "16 values a side are too few" in rows["s/mean"].reason


def test_draws_that_repeat_are_seen(judged):
    row = judged({"w": uniform(1)}, {"w": uniform(2)}, distinct=(1, 1))["w/distinct"]
    assert row.verdict == "misaligned"
    assert "1 in the port, 64 in the reference" in row.reason


def test_not_a_number_on_one_side(judged):
    values = uniform(1)
    values[7] = np.nan
    rows = judged({"w": values}, {"w": uniform(2)})
    assert all(rows[f"w/{name}"].verdict == "misaligned" for name in ("bounds", "mean", "std", "sample"))
    assert rows["w/sample"].reason.startswith("NaN or infinity: 1 of 4096")


@pytest.mark.parametrize(
    ("port", "reference", "side"), [(("a", "b"), ("a",), "reference"), (("a",), ("a", "b"), "port")]
)
def test_a_parameter_that_one_side_lacks(judged, port, reference, side):
    values = {"a": uniform(1), "b": uniform(2)}
    rows = judged({name: values[name] for name in port}, {name: values[name] for name in reference})
    assert {row.verdict for name, row in rows.items() if name.startswith("b/")} == {"missing"}
    assert rows["b/sample"].reason == f"the {side} has no such tensor"


def test_another_number_of_values(judged):
    rows = judged({"w": uniform(1, 2048)}, {"w": uniform(2)})
    assert rows["w/sample"].reason == "shape (2048,) in the port, (4096,) in the reference"
    assert rows["w/mean"].bad  # nothing to weigh it by: what is not equal is not aligned


def test_the_whole_table_has_one_chance_of_a_false_alarm(judged):
    """With 60 parameters each test has a smaller share: Bonferroni."""

    def limit(n):
        sides = ({f"p{i}": uniform(seed + i) for i in range(n)} for seed in (0, 1000))
        return judged(*sides)["p0/mean"].meaning

    limits = [limit(n) for n in (1, 60)]
    shares = [FAMILY / (4 * n) for n in (1, 60)]
    for limit, share in zip(limits, shares, strict=True):
        assert limit.limit / limit.noise == pytest.approx(-NormalDist().inv_cdf(share / 2))
    assert all(a.limit < b.limit for a, b in pairwise(limits))


def test_a_thousand_right_parameters_without_an_alarm(judged):
    names = [f"p{i}" for i in range(1000)]
    port = {name: (uniform if i % 2 else normal)(i, 512) for i, name in enumerate(names)}
    reference = {name: (uniform if i % 2 else normal)(5000 + i, 512) for i, name in enumerate(names)}
    rows = judged(port, reference)
    assert {row.verdict for row in rows.values()} == {"aligned"}
    # The greatest of 1,000 differences is where the normal distribution has it: between 2.5 and 5 standard errors.
    for statistic in ("mean", "std"):
        assert 2.5 < max(rows[f"{name}/{statistic}"].meaning.ratio for name in names) < 5


@pytest.mark.parametrize("draw", [uniform, normal])
def test_the_normal_limit_holds_from_enough_values_on(draw):
    """Differences of `ENOUGH` values in standard errors: as often beyond 3 as the normal distribution is."""
    rng = np.random.default_rng(3)
    shape = (2, 20000, ENOUGH)
    values = rng.uniform(-1, 1, shape) if draw is uniform else rng.standard_normal(shape)
    centred = values - values.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1)
    errors = {
        "mean": (values.mean(-1), np.sqrt(variance / ENOUGH)),
        "std": (
            np.sqrt(variance),
            np.sqrt(((centred**4).mean(-1) - variance**2) / (4 * variance * ENOUGH)),
        ),
    }
    for value, error in errors.values():
        beyond = np.mean(abs(value[0] - value[1]) > 3 * np.hypot(*error))
        assert 0.5 < beyond / (2 * NormalDist().cdf(-3)) < 1.6


def test_the_step_is_judged_this_way_in_a_run(bench):
    """Through `compare_runs`: no twin is asked for, and a fixed tolerance has no say over drawn values."""
    bench.step = "init"
    for side, seed in ((bench.reference, 1), (bench.port, 2)):
        made = {**statistics(uniform(seed)), "distinct": np.array([64, 1])}
        side.update({f"w/{name}": array for name, array in made.items()}, x=None)
    for fixed in (None, 1e-30):
        verdict = compare_runs(bench.runs(), Exceptions(), fixed)
        assert {row.name: row.verdict for row in verdict.rows} == {f"w/{name}": "aligned" for name in STATISTICS}
