"""What two models need is told before they are built; what is freed goes back."""

import pytest

from align.errors import EnvironmentFault
from align.record import memory


def test_this_machine_says_what_it_has():
    assert memory.available() > 0


def test_a_model_that_fits_is_let_through():
    memory.check("small", 1000)


def test_a_model_that_cannot_fit_is_told_with_both_numbers():
    parameters = memory.available()  # at 45 bytes and more for each, far beyond what is there
    with pytest.raises(EnvironmentFault, match=r"huge: its [\d,]+ parameters need at least [\d.]+ GB .* GB are free"):
        memory.check("huge", parameters)
