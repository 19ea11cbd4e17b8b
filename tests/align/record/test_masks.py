"""What a dropping module does without a tape: right ones pass whatever their law draws, wrong ones fail."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.record.masks import FALSE_ALARM, dropping, plausible, samples


def dropper(keep, shape, scale=None, seed=0):
    """A module that keeps with probability `keep`; `shape` of the mask from that of the input."""
    rng = np.random.default_rng(seed)
    return lambda x: x * (rng.random(shape(x)) < keep) * (1 / keep if scale is None else scale)


def per_element(x):
    return x.shape


def per_sample(x):
    return (x.shape[0], *[1] * (x.ndim - 1))


def per_batch(x):
    return (1,) * x.ndim


@given(st.floats(0.1, 0.995), st.integers(0, 1000))
def test_right_modules_pass(keep, seed):
    for shape, varies in ((per_element, (True, True, True)), (per_sample, (True, False, False))):
        found = dropping(dropper(keep, shape, seed=seed), 3, keep)
        assert (found.rate, found.scale, found.varies) == (True, True, varies)


def test_without_a_rate_the_scale_tells_it():
    assert dropping(dropper(0.8, per_sample), 3, None).rate
    assert not dropping(dropper(0.8, per_sample, scale=1 / 0.7), 3, None).rate


@pytest.mark.parametrize(
    ("module", "rate", "scale", "varies"),
    [
        (dropper(0.9, per_batch), None, True, (False, False, False)),
        (dropper(0.8, per_element), False, False, (True, True, True)),
        (dropper(0.9, per_element, scale=1.0), True, False, (True, True, True)),
        (dropper(0.9, per_sample, scale=0.9), True, False, (True, False, False)),
        (lambda x: x, None, False, (False, False, False)),
    ],
)
def test_wrong_modules_fail(module, rate, scale, varies):
    found = dropping(module, 3, 0.9)
    assert (found.scale, found.varies) == (scale, varies)
    if rate is not None:  # one draw for all cannot tell a rate
        assert found.rate is rate


@given(st.integers(1, 60), st.floats(0.05, 0.95))
def test_the_bound_is_no_tighter_than_the_binomial_law(draws, keep):
    refused = [kept for kept in range(draws + 1) if not plausible(kept, draws, keep)]
    chance = sum(math.comb(draws, kept) * keep**kept * (1 - keep) ** (draws - kept) for kept in refused)
    assert chance <= FALSE_ALARM


def test_what_can_never_be_is_not_plausible():
    assert not plausible(0, 5, 1.0)
    assert plausible(5, 5, 1.0)
    assert not plausible(500, 1000, 0.7)


@given(st.floats(0.01, 0.9996))
def test_so_many_samples_that_one_is_dropped(keep):
    assert keep ** samples(keep) <= FALSE_ALARM * 1.1 or samples(keep) == 1 << 16
