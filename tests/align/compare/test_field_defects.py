"""Wrong models that reprod_log and PaDiff let pass, one test for each, showing that they do not pass here.

What the tools do was seen by running reprod_log 1.0.1 and PaDiff 0.3.0; each test repeats their arithmetic beside ours,
to show that the pair is one that their rule really passes.

What concerns more than a comparison is tested where it belongs: a log that runs code on loading
(record/test_safe_pickle); a tensor that is written to after it was logged, hooks that stay after an exception, a model
with several outputs (record/test_observer, locate/test_models); a name given twice (record/test_store); a log with the
lines of another report, a side recorded without the other, a folder of results that is not emptied (cli/test_run); a
package that needs both frameworks (test_import); a mapping of unlike models (cli/test_map); the place of a wrong
gradient (locate/test_locate); dropout, and an optimizer other than SGD (steps/test_rates_on, steps/test_init_optim).
"""

import numpy as np
import pytest

from align.compare.bare import compare_dictionaries
from align.compare.statistics import compare


def verdict(candidate, reference, fixed=None):
    return compare_dictionaries({"x": candidate}, {"x": reference}, fixed).rows[0]


def reprod_log_passes(candidate, reference, threshold=1e-6, method="mean"):
    """ReprodDiffHelper: transposed if that makes shapes fit, broadcast if they do not, and failed only if `>` holds."""
    if candidate.shape != reference.shape and candidate.transpose().shape == reference.shape:
        candidate = candidate.transpose()
    return not getattr(np.abs(candidate - reference), method)() > threshold


def padiff_passes(candidate, reference):
    """PaDiff's default mode `mean`: the mean of one tensor against the mean of the other."""
    return bool(np.allclose(np.mean(candidate), np.mean(reference), rtol=1e-7, atol=0.0, equal_nan=True))


@pytest.mark.parametrize("method", ["mean", "max", "min"])
def test_nan_does_not_pass(method):
    candidate, reference = np.full(4, np.nan), np.zeros(4)
    assert reprod_log_passes(candidate, reference, method=method)
    for fixed in (None, 1e-6):
        row = verdict(candidate, reference, fixed)
        assert (row.verdict, row.reason) == ("misaligned", "nonfinite: nan against 0.0 at (0,), 4 positions differ")


def test_nan_in_different_places_does_not_pass():
    candidate, reference = np.array([np.nan, 1.0]), np.array([1.0, np.nan])
    assert padiff_passes(candidate, reference)
    assert verdict(candidate, reference).reason == "nonfinite: nan against 1.0 at (0,), 2 positions differ"


def test_a_transposed_tensor_is_not_turned_round():
    reference = np.arange(6.0).reshape(2, 3)
    assert reprod_log_passes(reference.T, reference)
    assert verdict(reference.T, reference).reason == "shape: (3, 2) against (2, 3)"


def test_a_forgotten_transpose_of_a_square_matrix_does_not_pass():
    reference = np.random.default_rng(0).standard_normal((8, 8))
    assert padiff_passes(reference.T, reference)
    assert verdict(reference.T, reference).verdict == "misaligned"


def test_shapes_are_not_broadcast():
    assert reprod_log_passes(np.ones(1), np.ones(4))
    assert verdict(np.ones(1), np.ones(4)).reason == "shape: (1,) against (4,)"
    assert verdict(np.ones((1,)), np.ones(())).reason == "shape: (1,) against ()"


def test_different_shapes_of_one_mean_do_not_pass():
    candidate, reference = np.full((2, 3), 0.5), np.full((7,), 0.5)
    assert padiff_passes(candidate, reference)
    assert verdict(candidate, reference).reason == "shape: (2, 3) against (7,)"


def test_unsigned_bytes_do_not_wrap_around():
    candidate, reference = np.zeros(4, np.uint8), np.full(4, 255, np.uint8)
    assert reprod_log_passes(candidate, reference, threshold=1.5)
    assert compare(candidate, reference).max_abs == 255.0
    assert verdict(candidate, reference).verdict == verdict(candidate, reference, fixed=1.5).verdict == "misaligned"


def test_a_mean_does_not_hide_an_outlier():
    reference = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    candidate = reference.copy()
    candidate[123] += np.float32(9.9e-4)
    assert reprod_log_passes(candidate, reference)
    row = verdict(candidate, reference)
    assert (row.verdict, row.difference.index) == ("misaligned", (123,))


def test_an_all_zero_gradient_of_a_small_scale_does_not_pass():
    reference = (1e-7 * np.random.default_rng(0).standard_normal(1000)).astype(np.float32)
    candidate = np.zeros_like(reference)
    assert reprod_log_passes(candidate, reference)
    row = verdict(candidate, reference)
    assert (row.verdict, row.difference.rel, row.difference.cosine) == ("misaligned", 1.0, 0.0)


def test_a_reversed_tensor_does_not_pass():
    reference = np.arange(10.0)
    assert padiff_passes(reference[::-1], reference)
    assert verdict(reference[::-1], reference).verdict == "misaligned"


def test_errors_that_cancel_do_not_pass():
    reference = np.ones(4)
    candidate = reference + np.array([1e6, -1e6, 1e6, -1e6])
    assert padiff_passes(candidate, reference)
    assert (verdict(candidate, reference).verdict, compare(candidate, reference).mean_abs) == ("misaligned", 1e6)


def test_a_loss_of_another_type_does_not_pass():
    candidate, reference = np.array(7.25, np.float32), np.array(7.25, np.float64)
    assert reprod_log_passes(candidate, reference)
    assert verdict(candidate, reference).reason == "dtype: float32 against float64"


def test_a_correct_loss_five_ulp_away_passes_where_an_absolute_1e_6_fails_it():
    reference = np.array(7.2244, np.float32)
    candidate = np.array(reference + 5 * np.spacing(reference), np.float32)
    assert not reprod_log_passes(candidate, reference)
    assert verdict(candidate, reference).verdict == "aligned"


def test_a_missing_key_is_named():
    # reprod_log raises "k in data1 but not found in data2" and never says which; PaDiff zips and compares what is left.
    result = compare_dictionaries({"w": np.ones(2)}, {"w": np.ones(2), "extra": np.ones(2)})
    assert [(row.name, row.verdict) for row in result.rows] == [("w", "aligned"), ("extra", "missing")]
    assert result.verdict == "misaligned"


def test_integers_stay_integers():
    # reprod_log's np2torch makes everything float32: 2^24 + 1 becomes 2^24.
    candidate, reference = np.array([2**24 + 1]), np.array([2**24])
    assert reprod_log_passes(candidate.astype(np.float32), reference.astype(np.float32))
    assert verdict(candidate, reference).verdict == "misaligned"


def test_a_later_step_counts_as_the_first_does():
    # PaDiff returns from within the loop over its steps: of three, it compares one.
    reference = {f"step/{i}": np.ones(3) for i in range(3)}
    candidate = {**reference, "step/1": np.full(3, 99.0), "step/2": np.full(3, 99.0)}
    assert padiff_passes(candidate["step/0"], reference["step/0"])
    assert compare_dictionaries(candidate, reference).verdict == "misaligned"


def test_every_difference_is_told_and_not_the_first_alone():
    # PaDiff's `result and check(...)` calls no further check once one has failed.
    reference = {f"rank/{i}": np.ones(3) for i in range(3)}
    result = compare_dictionaries({name: array + 1 for name, array in reference.items()}, reference)
    assert [(row.verdict, row.difference.max_abs) for row in result.rows] == [("misaligned", 1.0)] * 3


def test_steps_are_in_the_order_in_which_they_were_written():
    # PaDiff sorts them as text: step_10 comes before step_2.
    names = [f"step_{i}" for i in range(12)]
    result = compare_dictionaries({n: np.ones(1) for n in names}, {n: np.ones(1) for n in names})
    assert [row.name for row in result.rows] == names
