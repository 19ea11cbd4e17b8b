"""A thinned tensor stands for the whole one: what differs shows, and shows as large as it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.golden.thinning import BYTES, CHOSEN, DRAWN, SAMPLES, STRETCHES, SUMS, WHOLE, digest, how, places, thin
from align.record.store import Entry

sizes = st.integers(WHOLE + 1, 20_000)


def entry(name="x", dtype="float32", shape=(100,)):
    return Entry(name, "activation", dtype, shape, 0, 0)


@pytest.mark.parametrize(
    ("step", "tensor", "way"),
    [
        ("forward", entry(shape=(8, 8)), None),
        ("forward", entry(shape=(5, 13)), SUMS),
        ("bp_align", entry(dtype="bfloat16"), SUMS),
        ("data", entry(dtype="uint8"), BYTES),
        ("weights", entry(), BYTES),
        ("init", entry("head.weight/sample", shape=(DRAWN + 1,)), CHOSEN),
        ("init", entry("head.weight/sample", shape=(DRAWN,)), None),
    ],
)
def test_what_is_thinned_and_how(step, tensor, way):
    assert how(step, tensor) == way


@given(sizes, st.integers(0, 2**32 - 1))
def test_one_wrong_element_shows(size, seed):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(size)
    wrong = truth.copy()
    wrong[rng.integers(size)] += 1.0
    assert np.abs(thin(wrong, SUMS) - thin(truth, SUMS)).max() > 1e-8


@given(sizes, st.integers(0, 2**32 - 1))
def test_two_elements_that_changed_places_show(size, seed):
    rng = np.random.default_rng(seed)
    truth = np.arange(size, dtype=np.float64)
    a, b = rng.choice(size, 2, replace=False)
    wrong = truth.copy()
    wrong[[a, b]] = truth[[b, a]]
    assert not np.array_equal(thin(wrong, SUMS), thin(truth, SUMS))


def test_the_difference_of_thinned_tensors_is_as_large_as_that_of_whole_ones():
    rng = np.random.default_rng(0)
    quotients = []
    for size in (65, 100, 1000, 12345, 300_000):
        for _ in range(20):
            truth, error = rng.standard_normal((2, size))
            found = thin(truth + 1e-3 * error, SUMS) - thin(truth, SUMS)
            quotients.append(np.sqrt(np.mean(found**2)) / 1e-3)
    # 64 numbers estimate a root mean square to 1 / sqrt(128), 9 %: five of that, and their mean over a hundred runs.
    assert np.all(np.abs(np.array(quotients) - 1) < 0.45)
    assert abs(np.mean(quotients) - 1) < 0.02


def test_moving_everything_by_an_ulp_moves_the_sums_by_no_more():
    truth = np.random.default_rng(1).standard_normal(1_000_000)
    moved = thin(truth * (1 + np.random.default_rng(2).choice([-1, 1], truth.size) * 2.0**-52), SUMS)
    assert np.sqrt(np.mean((moved - thin(truth, SUMS)) ** 2)) < 4 * 2.0**-52


@given(st.integers(SAMPLES, 10**7))
def test_samples_are_of_every_part_of_a_tensor(size):
    found = places(size, SAMPLES)
    edges = np.arange(SAMPLES + 1) * size // SAMPLES
    assert np.all((edges[:-1] <= found) & (found < edges[1:]))


def test_of_a_drawn_sample_a_part_stays_in_order():
    sample = np.sort(np.random.default_rng(2).standard_normal(16384))
    part = thin(sample, CHOSEN)
    assert part.shape == (DRAWN,)
    assert np.all(np.diff(part) >= 0)
    assert np.isin(part, sample).all()
    # The mean of 1,024 of 16,384 values: within five of its standard errors.
    assert abs(part.mean() - sample.mean()) < 5 / np.sqrt(DRAWN)


def test_a_hash_is_of_values_type_and_shape():
    ones = np.ones((2, 3), np.float32)
    assert digest(ones) == digest(np.asfortranarray(ones))
    assert digest(np.array([0.0, np.nan])) == digest(np.array([-0.0, -np.nan]))
    others = [ones.reshape(3, 2), ones.astype(np.float64), np.nextafter(ones, np.float32(2))]
    assert digest(ones) not in [digest(other) for other in others]


def test_the_numbers_of_a_thinned_tensor():
    assert thin(np.zeros((30, 40), np.float32), SUMS).shape == (SAMPLES + STRETCHES,)
    assert thin(np.zeros(70, np.uint8), BYTES).dtype == np.uint8
