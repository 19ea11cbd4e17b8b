"""The unit: how a run is moved by one ulp, what is measured of it, and how noise is made of that."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.compare.noise import SMALL, Measured, Noise, floor, measure, pooled
from align.compare.ulp import FORMATS, ulp
from align.record.noise import NoiseMeter, one_ulp_off
from align.record.store import Store, StoreWriter


def moved(array, dtype, seed=0):
    return one_ulp_off(array, dtype, np.random.default_rng(seed))


def bits(array):
    """Numbers of the type in order, as integers one apart."""
    raw = array.view(f"i{array.dtype.itemsize}").astype(np.int64)
    return np.where(raw < 0, -(raw & (2 ** (8 * array.dtype.itemsize - 1) - 1)), raw)


class TestOneUlpOff:
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_every_element_moves_to_a_neighbour_and_to_both_sides(self, dtype):
        array = np.random.default_rng(1).standard_normal(1000).astype(dtype)
        steps = bits(moved(array, dtype)) - bits(array)
        assert set(steps.tolist()) == {-1, 1}
        assert moved(array, dtype).dtype == dtype

    def test_bfloat16_moves_to_a_neighbour_of_its_own(self):
        array = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
        upper = (array.view(np.uint32) >> 16 << 16).view(np.float32)
        result = moved(upper, "bfloat16")
        assert result.dtype == np.float32
        assert set((bits(result) - bits(upper)).tolist()) == {-(1 << 16), 1 << 16}

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
    def test_zeros_stay(self, dtype):
        assert moved(np.zeros(100, np.float32), dtype).tolist() == [0.0] * 100
        assert np.signbit(moved(np.array([-0.0]), dtype)).all()

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_infinities_stay(self, dtype):
        assert moved(np.array([np.inf, -np.inf]), dtype).tolist() == [np.inf, -np.inf]

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_so_does_what_is_zero_in_the_type(self, dtype):
        assert moved(np.full(100, 1e-41, np.float32), dtype).tolist() == [0.0] * 100

    def test_a_float64_run_of_float32_sources_moves_by_ulps_of_float64(self):
        array = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
        result = moved(array, "float64")
        assert 0 < np.max(np.abs(result / array - 1)) < 2.3e-16

    def test_another_seed_is_another_run(self):
        array = np.ones(100, np.float32)
        assert moved(array, "float32", 1).tolist() == moved(array, "float32", 1).tolist()
        assert moved(array, "float32", 1).tolist() != moved(array, "float32", 2).tolist()

    @pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
    def test_any_shape(self, shape):
        assert moved(np.ones(shape, np.float32), "float32").shape == shape


class TestMeter:
    @pytest.fixture
    def meter(self, tmp_path):
        with StoreWriter(tmp_path, "s") as writer:
            writer.add("x", np.array([1.0, 2.0, 3.0, 4.0]), "output")
            writer.add("mask", np.array([0.0, -np.inf, np.nan, 1.0]), "activation")
            writer.add("label", np.array([1, 2]), "output")
            writer.add("none", np.empty((0, 2)), "output")
        return NoiseMeter(Store(tmp_path, "s"))

    def test_root_mean_square_and_maximum(self, meter):
        meter.add("x", np.array([1.0, 2.5, 3.0, 3.0], np.float32), "output")
        assert meter.errors == {"x": (math.sqrt((0.25 + 1) / 4), 1.0)}

    def test_of_what_is_finite(self, meter):
        meter.add("mask", np.array([0.5, -np.inf, np.nan, 1.0], np.float32), "activation")
        assert meter.errors == {"mask": (math.sqrt(0.125), 0.5)}

    @pytest.mark.parametrize(
        ("name", "array"),
        [
            ("x", np.ones(5, np.float32)),
            ("x", np.full(4, np.nan, np.float32)),
            ("y", np.ones(4, np.float32)),
            ("label", np.array([1, 3])),
            ("none", np.empty((0, 2), np.float32)),
        ],
    )
    def test_what_has_no_error_is_not_measured(self, meter, name, array):
        meter.add(name, array, "output")
        assert meter.errors == {}

    def test_a_second_name_has_the_same_error(self, meter):
        meter.add("x", np.array([1.0, 2.0, 3.0, 5.0]), "output")
        meter.alias("y", "x", "input")
        meter.alias("z", "label", "input")
        assert meter.errors["y"] == meter.errors["x"]
        assert "z" not in meter.errors


finite = st.floats(0, 1e30)
noises = st.builds(Noise, finite, finite)


class TestMeasure:
    def test_the_greatest_of_the_plain_and_the_perturbed_runs_for_each_of_the_two(self):
        runs = {"float32": [(3e-3, 1e-3), (1e-3, 9e-3)], "float64": [(0.0, 0.0)]}
        found = measure("output", "float32", 100, (1.0, 4.0), Noise(2e-3, 2e-3), runs)
        assert found.working == Noise(3e-3, 9e-3)
        assert found.twin == Noise(3e-3 * 2.0**-29, 9e-3 * 2.0**-29)

    def test_never_below_one_ulp_of_the_scale(self):
        found = measure("output", "float32", 100, (1.0, 4.0), Noise(0.0, 0.0), {})
        assert found.working == Noise(2.0**-23, 2.0**-21)
        assert found.twin == Noise(2.0**-52, 2.0**-50)

    def test_the_float64_run_tells_what_the_factor_cannot(self):
        """Where the working type is exact by luck, float64 may round all the same."""
        found = measure("output", "float32", 100, (1.0, 4.0), Noise(0.0, 0.0), {"float64": [(1e-12, 5e-12)]})
        assert found.twin == Noise(1e-12, 5e-12)
        assert found.working == Noise(2.0**-23, 2.0**-21)

    @pytest.mark.parametrize(("dtype", "shift"), [("float16", 42), ("bfloat16", 45), ("float32", 29), ("float64", 0)])
    def test_the_factor_is_the_ratio_of_the_two_types(self, dtype, shift):
        found = measure("output", dtype, 100, (1.0, 1.0), Noise(1.0, 1.0), {})
        assert found.twin == Noise(2.0**-shift, 2.0**-shift)

    @settings(max_examples=50)
    @given(st.sampled_from(sorted(FORMATS)), finite, finite, noises, st.lists(st.tuples(finite, finite)))
    def test_noise_covers_all_that_was_measured(self, dtype, rms, greatest, plain, errors):
        found = measure("output", dtype, 100, (rms, greatest), plain, {dtype: errors})
        for error in [(plain.rms, plain.maximum), *errors]:
            assert found.working.rms >= error[0]
            assert found.working.maximum >= error[1]
        low = floor(dtype, rms, greatest)
        assert found.working.joined(low) == found.working
        assert found.twin.joined(floor("float64", rms, greatest)) == found.twin
        assert low == Noise(ulp(dtype, rms), ulp(dtype, greatest))


def row(size, noise, scale=1.0, kind="gradient"):
    return Measured(kind, size, scale, 2 * scale, Noise(noise, 2 * noise), Noise(noise * 2.0**-29, noise * 2.0**-28))


class TestPooled:
    def test_errors_are_pooled_over_all_elements_relative_to_the_scale(self):
        found = pooled({"a": row(10, 3e-7), "b": row(30, 4e-4, scale=1e3), "c": row(40, 0.0)})
        rms = math.sqrt((10 * 3e-7**2 + 30 * 4e-7**2) / 80)
        assert found["c"].working.rms == pytest.approx(rms)
        assert found["c"].working.maximum == pytest.approx(8e-7)
        assert found["c"].twin.rms == pytest.approx(rms * 2.0**-29)
        assert found["b"].working.rms == 4e-4, "its own is greater"

    @pytest.mark.parametrize(
        "alone", [row(SMALL, 0.0), row(1000, 0.0), row(10, 0.0, kind="output"), row(10, 0.0, scale=0.0), row(0, 0.0)]
    )
    def test_large_rows_other_kinds_and_zeros_are_left_alone(self, alone):
        assert pooled({"noisy": row(10, 1e-3), "alone": alone})["alone"] == alone

    def test_large_rows_lend_nothing(self):
        assert pooled({"large": row(SMALL, 1e-3), "small": row(10, 1e-7)})["small"] == row(10, 1e-7)

    @settings(max_examples=50)
    @given(
        hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(1e-9, 1.0)),
        hnp.arrays(np.float64, 8, elements=st.floats(1e-6, 1e6)),
    )
    def test_no_row_loses_noise(self, noises, scales):
        rows = {str(i): row(1 + i, noise * scales[i], scales[i]) for i, noise in enumerate(noises)}
        for name, found in pooled(rows).items():
            for which in ("working", "twin"):
                own = getattr(rows[name], which)
                assert getattr(found, which).joined(own) == getattr(found, which)
            assert (found.size, found.kind, found.scale_rms) == (rows[name].size, "gradient", rows[name].scale_rms)


def test_a_row_that_is_zero_but_for_rounding_shares_no_noise():
    """The gradient of a key's bias: its few digits are rounding, and would make every small row of its kind blind."""
    sound = {f"bias{n}": measure("gradient", "float32", 16, (1.0, 2.0), Noise(1e-8, 2e-8), {}) for n in range(3)}
    nothing = measure("gradient", "float32", 16, (1e-17, 2e-17), Noise(1e-9, 2e-9), {"float64": [(1e-17, 2e-17)]})
    assert nothing.cancelled
    together = pooled({**sound, "key.bias": nothing})
    assert together["bias0"] == pooled(sound)["bias0"]
    assert together["key.bias"].working.rms >= nothing.working.rms
