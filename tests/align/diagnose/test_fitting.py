"""An unknown number of a formula: found to rounding where it fits, quickly given up where nothing does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.diagnose.fitting import short, solved

X = np.random.default_rng(0).standard_normal((4, 8))
FORMULAS = {
    "scale": lambda number: X * number,
    "temperature": lambda number: np.exp(X / number) / np.exp(X / number).sum(1, keepdims=True),
    "epsilon": lambda number: X / np.sqrt(X.var(1, keepdims=True) + number),
}


@pytest.mark.parametrize("name", FORMULAS)
@given(number=st.floats(0.05, 20), guess=st.floats(0.1, 10))
@settings(deadline=None, max_examples=50)
def test_where_the_formula_fits_the_number_is_found_to_rounding(name, number, guess):
    formula = FORMULAS[name]
    found = solved(formula, formula(number), number * guess)
    assert found is not None
    assert np.allclose(formula(found), formula(number), rtol=0, atol=1e-9 * np.abs(formula(number)).max())


class Counted:
    """A formula that knows how often it was asked."""

    def __init__(self, formula):
        self.formula, self.asked = formula, 0

    def __call__(self, number):
        self.asked += 1
        return self.formula(number)


@pytest.mark.parametrize("name", FORMULAS)
def test_where_none_fits_there_is_none_and_the_search_is_short(name):
    fits, wanted = Counted(FORMULAS[name]), FORMULAS[name](2.0)
    assert solved(fits, wanted, 1.0) is not None
    other = wanted + 0.3 * np.random.default_rng(1).standard_normal(wanted.shape) * np.abs(wanted).max()
    never = Counted(FORMULAS[name])
    assert solved(never, other, 1.0) is None
    assert never.asked < 3 * 3 * 16  # of three starts not one uses up its rounds


@pytest.mark.parametrize("formula", [lambda number: X * np.nan, lambda number: X], ids=["nan", "constant"])
def test_a_formula_that_tells_nothing_of_the_number(formula):
    assert solved(formula, X + 1, 1.0) is None


def test_a_number_is_told_as_it_was_written():
    assert short(0.1 * (1 + 1e-9)) == 0.1
    assert short(0.1 * (1 + 1e-6)) != 0.1
