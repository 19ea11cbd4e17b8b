"""The rule, row by row: what a correct port may do, and what no wrong one gets away with."""

import numpy as np
import pytest

from align.compare.noise import DIGITS


def normal(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def same_as(bench, name, kind="input"):
    tensor = type(next(iter(bench.tensors({}, 0, "float64").values())))
    return tensor(None, kind, name)


def test_a_correct_port_is_aligned(bench):
    row = bench.row()
    assert (row.verdict, row.reason) == ("aligned", "")
    assert 0 < row.meaning.ratio < 8
    assert 0 < row.precision.ratio < 8
    assert row.meaning.limit == 64 * row.meaning.noise
    assert 0 < row.noise.rms < row.noise.maximum < 1e-5
    assert (row.shape, row.dtype, row.difference.size) == ((1000,), "float32", 1000)


def test_the_float64_limit_is_that_much_smaller(bench):
    row = bench.row()
    assert row.precision.limit > 2.0**24 * row.meaning.limit


class TestForm:
    """What must agree before a number is weighed, in this order."""

    @pytest.mark.parametrize(("side", "word"), [("port", "port"), ("reference", "reference")])
    def test_missing_on_one_side(self, bench, side, word):
        bench.truth["y"] = normal(5)
        getattr(bench, side)["y"] = None
        row = bench.row("y")
        assert (row.verdict, row.reason) == ("missing", f"the {word} has no such tensor")
        assert bench.verdict().exit_code == 1

    def test_more_than_the_reference_has(self, bench):
        bench.port["z"] = np.ones(3, np.float32)
        assert (bench.row("z").verdict, bench.row("z").reason) == ("missing", "the reference has no such tensor")

    def test_another_dtype(self, bench):
        bench.port["x"] = bench.rounded("x", 2, "float64")
        row = bench.row()
        assert (row.verdict, row.reason) == ("misaligned", "dtype float64 in the port, float32 in the reference")

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [((1,), ()), ((2, 3), (3, 2)), ((1, 5), (5,)), ((0,), ()), ((4, 1), (1, 4)), ((0, 3), (3, 0))],
    )
    def test_another_shape(self, bench, ours, theirs):
        bench.truth["x"] = np.ones(theirs)
        bench.port["x"] = np.ones(ours, np.float32)
        row = bench.row()
        assert (row.verdict, row.reason) == ("misaligned", f"shape {ours} in the port, {theirs} in the reference")
        assert row.difference is None

    def test_dtype_is_told_before_shape_and_shape_before_values(self, bench):
        bench.port["x"] = np.full((3,), np.nan)
        assert bench.row().reason.startswith("dtype")
        bench.port["x"] = np.full((3,), np.nan, np.float32)
        assert bench.row().reason.startswith("shape")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite_on_one_side(self, bench, value):
        bench.port["x"] = bench.rounded("x", 2)
        bench.port["x"][123] = value
        row = bench.row()
        assert row.verdict == "misaligned"
        assert row.reason.startswith("NaN or infinity: 1 of 1000 places differ, first at (123,): ")
        bench.reference["x"], bench.port["x"] = bench.port["x"], bench.rounded("x", 1)
        assert bench.row().verdict == "misaligned"

    def test_infinities_of_different_sign(self, bench):
        for side, value in (("reference", np.inf), ("port", -np.inf)):
            array = bench.rounded("x", 1)
            array[7] = value
            getattr(bench, side)["x"] = array
        assert "first at (7,): -inf in the port, inf in the reference" in bench.row().reason

    def test_not_finite_in_the_same_places(self, bench):
        bench.truth["x"][[3, 4, 5]] = np.nan, np.inf, -np.inf
        assert bench.row().verdict == "aligned"

    def test_not_finite_in_float64_alone(self, bench):
        bench.port_twin["x"] = bench.rounded("x", 3, "float64")
        bench.port_twin["x"][5] = np.nan
        row = bench.row()
        assert (row.verdict, row.reason[:29]) == ("misaligned", "NaN or infinity in float64: 1")

    @pytest.mark.parametrize("twin", [None, np.ones(3)])
    def test_a_twin_without_the_tensor(self, bench, twin):
        bench.port_twin["x"] = twin
        row = bench.row()
        assert (row.verdict, row.reason) == ("misaligned", "the port's float64 run has no such tensor of this shape")


class TestSensitivity:
    def test_a_zero_truth_shows_nothing(self, bench):
        bench.truth["x"] = np.zeros(100)
        row = bench.row()
        assert (row.verdict, row.reason) == ("insensitive", "the truth is zero")
        verdict = bench.verdict()
        assert (verdict.verdict, verdict.exit_code, verdict.blind) == ("vacuous", 1, ("output x",))

    def test_but_something_else_than_zero_is_wrong(self, bench):
        bench.truth["x"] = np.zeros(100)
        bench.port["x"] = np.full(100, 1e-12, np.float32)
        bench.port_twin["x"] = np.full(100, 1e-12)
        assert bench.row().verdict == "misaligned"

    @pytest.mark.parametrize("shape", [(0,), (0, 3)])
    def test_no_element_shows_nothing(self, bench, shape):
        bench.truth["x"] = np.ones(shape)
        row = bench.row()
        assert (row.verdict, row.reason) == ("insensitive", "the truth is empty")

    def test_nan_everywhere_shows_nothing(self, bench):
        bench.truth["x"] = np.full(10, np.nan)
        row = bench.row()
        assert (row.verdict, row.reason) == ("insensitive", "no element is finite")
        assert bench.verdict().verdict == "vacuous"

    def test_where_a_rolled_copy_passes_so_would_a_wrong_answer(self, bench):
        bench.truth["x"] = 1 + 1e-14 * normal(1000)
        row = bench.row()
        assert (row.verdict, row.reason) == ("insensitive", "its rolled copy would pass too")

    def test_where_only_its_outlier_would_fail_it_is_seen(self, bench):
        """Rolled, the one large element stands elsewhere: small in the rms of a million, not in the maximum."""
        bench.truth["x"] = np.full(1_000_000, 1e-3)
        bench.truth["x"][5] += 5e-18
        bench.noise = False
        bench.reference["x"] = bench.port["x"] = bench.truth["x"].astype(np.float32)
        bench.port_twin["x"] = bench.truth["x"]
        assert bench.row().verdict == "insensitive"
        bench.truth["x"][5] += 1e-15
        bench.reference["x"] = bench.port["x"] = bench.truth["x"].astype(np.float32)
        bench.port_twin["x"] = bench.truth["x"]
        assert bench.row().verdict == "aligned"

    @pytest.mark.parametrize("truth", [np.array(0.25), np.array([0.25]), np.full(100, 0.25)])
    def test_a_constant_has_no_rolled_copy(self, bench, truth):
        bench.truth["x"] = truth
        assert bench.row().verdict == "aligned"

    def test_integers_too(self, bench):
        bench.truth = {"x": np.arange(5), "y": np.full(4, 7), "z": np.zeros(4, np.int64)}
        assert [row.verdict for row in bench.verdict().rows] == ["aligned", "aligned", "insensitive"]


class TestMeaning:
    @pytest.mark.parametrize("error", [1e-6, 1e-9, 1e-11])
    def test_a_difference_far_below_float32_is_seen(self, bench, error):
        bench.port_twin["x"] = bench.truth["x"] * (1 + error)
        row = bench.row()
        assert row.verdict == "misaligned"
        assert row.reason.startswith("meaning ")
        assert row.precision.holds
        sizes = {"rms": np.sqrt(np.mean(bench.truth["x"] ** 2)), "maximum": np.abs(bench.truth["x"]).max()}
        assert row.meaning.error == pytest.approx(error * sizes[row.meaning.measure], rel=1e-3)
        assert "1000 of 1000 elements differ, most at (" in row.reason

    def test_one_in_a_million(self, bench):
        """A root mean square would hide it."""
        truth = bench.truth["x"] = normal(1_000_000)
        bench.port_twin["x"] = bench.rounded("x", 3, "float64", ulps=1)
        assert bench.row().verdict == "aligned"
        bench.port_twin["x"][777_777] = truth[777_777] + 1e-12
        row = bench.row()
        assert (row.verdict, row.meaning.measure) == ("misaligned", "maximum")
        assert "most at (777777,)" in row.reason
        rms = np.sqrt(np.mean((bench.port_twin["x"] - truth) ** 2))
        assert rms < row.meaning.limit / 100, "or it would have been seen by the rms as well"

    def test_a_difference_everywhere_below_the_greatest_is_seen_by_the_rms(self, bench):
        """Where one element is noisy, the maximum would hide it."""
        bench.truth["x"] = np.append(normal(1000, scale=1e-3), 1e4)
        bench.port_twin["x"] = np.append(bench.truth["x"][:-1] + 1e-9, 1e4)
        row = bench.row()
        assert (row.verdict, row.meaning.measure) == ("misaligned", "rms")

    def test_a_permuted_tensor_of_the_same_values(self, bench):
        bench.port["x"] = bench.rounded("x", 2)[::-1]
        bench.port_twin["x"] = bench.truth["x"][::-1]
        assert bench.row().meaning.ratio > 1e10


class TestPrecision:
    @pytest.mark.parametrize(("dtype", "bits"), [("float16", 10), ("bfloat16", 7), ("TF32", 10)])
    def test_a_working_type_that_was_rounded_on_the_way(self, bench, dtype, bits):
        bits = 23 - bits
        rounded = bench.rounded("x", 2).view(np.uint32)
        bench.port["x"] = ((rounded + (1 << (bits - 1))) >> bits << bits).view(np.float32)
        row = bench.row()
        assert row.verdict == "misaligned"
        assert row.reason.startswith("precision ")
        assert row.meaning.holds
        assert row.precision.ratio > 300

    def test_the_reference_itself_may_be_far_from_the_truth(self, bench):
        """A port that is as far off in its own way rounds as the reference does."""
        bench.reference["x"] = bench.rounded("x", 1, ulps=5000)
        bench.port["x"] = bench.rounded("x", 2, ulps=5000)
        assert bench.row().verdict == "aligned"
        bench.reference.clear()
        assert bench.row().verdict == "misaligned"

    def test_the_allowance_covers_both_sides(self, bench):
        row = bench.row()
        assert row.allowance == pytest.approx(65 * row.noise.maximum)
        assert row.difference.max_abs < row.allowance


class TestPooling:
    """Rows under 64 elements share the noise of their kind: by luck, one of them may have none of its own."""

    def lucky(self, bench, **kinds):
        bench.noise = False
        bench.truth = {f"other{i}": normal(40, seed=i) for i in range(5)} | {"x": normal(4, seed=9)}
        bench.kinds = dict.fromkeys(bench.truth, "gradient") | kinds
        bench.truth["x"] = bench.truth["x"].astype(np.float32).astype(np.float64)
        bench.reference = {f"other{i}": bench.rounded(f"other{i}", 1, ulps=400) for i in range(5)}
        bench.reference["x"] = bench.truth["x"].astype(np.float32)
        bench.port = {name: bench.rounded(name, 2, ulps=400) for name in bench.truth}
        return bench

    def test_a_lucky_row_is_judged_by_its_kind(self, bench):
        row = self.lucky(bench).row()
        assert row.verdict == "aligned"
        assert row.noise.rms > 50 * 2.0**-24

    def test_not_by_another_kind(self, bench):
        row = self.lucky(bench, x="output").row()
        assert (row.verdict, row.reason[:9]) == ("misaligned", "precision")

    def test_large_rows_keep_to_themselves(self, bench):
        self.lucky(bench)
        bench.truth["x"] = normal(64, seed=9).astype(np.float32).astype(np.float64)
        bench.reference["x"] = bench.truth["x"].astype(np.float32)
        bench.port["x"] = bench.rounded("x", 2, ulps=400)
        assert bench.row().verdict == "misaligned"

    def test_relative_to_each_rows_scale(self, bench):
        """A small row of large values must not lend its absolute noise to one of small values."""
        self.lucky(bench)
        bench.truth |= {name: 1e6 * array for name, array in bench.truth.items() if name != "x"}
        bench.reference |= {name: 1e6 * array for name, array in bench.reference.items() if name != "x"}
        bench.port |= {name: 1e6 * array for name, array in bench.port.items() if name != "x"}
        assert bench.row().verdict == "aligned"
        bench.port["x"] = bench.truth["x"].astype(np.float32) + np.float32(0.1)
        assert bench.row().verdict == "misaligned"


class TestExact:
    @pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
    def test_bytes_labels_and_masks_must_be_equal(self, bench, dtype):
        bench.truth["x"] = np.array([0, 1, 0, 1, 1]).astype(dtype)
        assert bench.row().verdict == "aligned"
        bench.port["x"] = np.array([0, 1, 1, 1, 1]).astype(dtype)
        row = bench.row()
        assert row.verdict == "misaligned"
        assert row.reason.startswith("must be equal: 1 of 5 elements differ, most at (2,)")
        assert row.meaning.ratio == 1.0

    def test_unsigned_bytes_do_not_wrap_around(self, bench):
        bench.truth["x"] = np.array([0, 255], np.uint8)
        bench.port["x"] = np.array([255, 255], np.uint8)
        assert bench.row().difference.max_abs == 255

    def test_weights_may_not_differ_by_one_bit(self, bench):
        bench.step, bench.twins, bench.kinds = "weights", False, {"x": "parameter"}
        bench.port["x"] = bench.rounded("x", 1)
        assert bench.row().verdict == "aligned"
        bench.port["x"][9] = np.nextafter(bench.port["x"][9], np.float32(9))
        row = bench.row()
        assert (row.verdict, row.reason[:13]) == ("misaligned", "must be equal")

    def test_complex_numbers(self, bench):
        bench.truth["x"] = np.array([1 + 2j, 3 - 4j])
        bench.noise = False
        assert bench.row().verdict == "aligned"
        bench.port["x"] = np.array([1 + 2j, 3 + 4j])
        assert bench.row().verdict == "misaligned"


class TestKinds:
    def test_one_sample_may_flip_in_the_working_type_but_not_in_float64(self, bench):
        bench.step, bench.kinds = "train_align", {"x": "metric"}
        bench.truth["x"] = np.array(0.75)
        bench.port["x"] = np.array(0.7, np.float32)
        row = bench.row()
        assert (row.verdict, row.precision) == ("aligned", None)
        bench.port_twin["x"] = np.array(0.7)
        assert bench.row().verdict == "misaligned"

    def test_a_curve_of_float32_numbers_that_left_as_python_floats(self, bench):
        """Recorded in float64 in either run: its noise is that of the type it was computed in."""
        bench.step, bench.kinds = "train_align", {"x": "curve"}
        bench.truth["x"] = np.linspace(2.3, 0.1, 100)
        bench.reference["x"] = bench.rounded("x", 1).astype(np.float64)
        bench.port["x"] = bench.rounded("x", 2).astype(np.float64)
        assert bench.row().verdict == "aligned"
        bench.port_twin["x"] = bench.truth["x"] * (1 + 1e-10)
        row = bench.row()
        assert (row.verdict, row.reason[:7]) == ("misaligned", "meaning")


class TestWorkingTypes:
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_a_correct_port(self, bench, dtype):
        bench.dtype = dtype
        row = bench.row()
        assert (row.verdict, row.dtype) == ("aligned", dtype)
        assert 0 < row.meaning.ratio < 8

    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_the_same_small_bug(self, bench, dtype):
        bench.dtype = dtype
        bench.port_twin["x"] = bench.truth["x"] * (1 + 1e-9)
        assert bench.row().verdict == "misaligned"

    def test_a_bug_in_a_float64_run(self, bench):
        bench.dtype = "float64"
        bench.port["x"] = bench.truth["x"] * (1 + 1e-11)
        row = bench.row()
        assert (row.verdict, row.reason[:7]) == ("misaligned", "meaning")
        bench.step = "weights"
        assert bench.row().reason.startswith("must be equal")

    def test_every_working_type_has_its_digits(self):
        for dtype in ("float16", "float32", "float64"):
            assert 2.0 ** -DIGITS[dtype] == np.finfo(dtype).eps


class TestFixed:
    def test_the_mean_decides(self, bench):
        bench.port["x"] = bench.port_twin["x"] = None
        bench.port = {"x": bench.reference.setdefault("x", bench.rounded("x", 1)) + np.float32(1e-3)}
        bench.port_twin = {}
        assert bench.row(fixed=1e-2).verdict == "aligned"
        row = bench.row(fixed=1e-4)
        assert (row.verdict, row.reason) == ("misaligned", "fixed rule: mean absolute difference 0.001 exceeds 0.0001")

    def test_form_is_not_forgiven(self, bench):
        for wrong in (np.full(1000, np.nan, np.float32), np.ones((1000, 1), np.float32), np.ones(1000)):
            bench.port["x"] = wrong
            assert bench.row(fixed=1e9).verdict == "misaligned"
        bench.port["x"] = None
        assert bench.row(fixed=1e9).verdict == "missing"

    def test_bytes_stay_exact(self, bench):
        bench.truth["x"] = np.array([1, 2], np.uint8)
        bench.port["x"] = np.array([1, 3], np.uint8)
        assert bench.row(fixed=10.0).verdict == "misaligned"

    def test_where_the_tolerance_is_blind_it_is_told(self, bench):
        """reprod_log passes a gradient of 1e-7 against zeros at 1e-6."""
        bench.truth["x"] = normal(1000, scale=1e-7)
        bench.port["x"] = np.zeros(1000, np.float32)
        row = bench.row(fixed=1e-6)
        assert (row.verdict, row.reason) == ("insensitive", "zeros would pass too")
        assert bench.verdict(fixed=1e-6).exit_code == 1
        assert bench.row(fixed=1e-9).verdict == "misaligned"

    def test_a_rolled_copy_would_pass(self, bench):
        bench.truth["x"] = 1 + normal(1000, scale=1e-7)
        assert bench.row(fixed=1e-6).reason == "its rolled copy would pass too"

    def test_a_zero_truth_stays_insensitive(self, bench):
        bench.truth["x"] = np.zeros(10)
        assert bench.row(fixed=0.0).verdict == "insensitive"


class TestSecondNames:
    """A module's input that is another's output is recorded once and judged once."""

    def test_judged_once(self, bench):
        bench.truth["a"] = normal(10)
        for side in (bench.reference, bench.port, bench.port_twin):
            side["b"] = same_as(bench, "a")
        assert {row.name for row in bench.verdict().rows} == {"x", "a"}

    def test_a_second_name_of_something_else(self, bench):
        """The port feeds a module from elsewhere: both inputs are second names, but of different tensors."""
        bench.truth |= {"a": normal(10, seed=1), "c": normal(10, seed=2)}
        bench.reference["b"], bench.port["b"] = same_as(bench, "a"), same_as(bench, "c")
        row = bench.row("b")
        assert row.verdict == "misaligned"

    def test_a_second_name_on_one_side_only(self, bench):
        bench.truth["a"] = normal(10, seed=1)
        bench.reference["b"] = same_as(bench, "a")
        bench.port["b"] = normal(10, seed=2).astype(np.float32)
        assert bench.row("b").verdict == "misaligned"

    def test_a_module_that_only_one_side_has(self, bench):
        """What it was given is judged under its first name."""
        bench.truth["a"] = normal(10)
        bench.reference["b"] = same_as(bench, "a")
        verdict = bench.verdict()
        assert verdict.verdict == "aligned"
        assert {row.name for row in verdict.rows} == {"x", "a"}
