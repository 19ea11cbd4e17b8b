"""Which calls of unlike trees are no counterparts although they hold the same parameters, and what is told first."""

import numpy as np
import pytest

from align.locate.modules import Finding, _time
from align.locate.search import _goes_on

EXPECTED = np.linspace(-2.0, 3.0, 24).reshape(2, 3, 4)
GIVEN = np.linspace(5.0, 6.0, 16).reshape(2, 2, 4)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (EXPECTED, False),
        (np.maximum(EXPECTED, 0), True),
        (np.tanh(EXPECTED), True),
        (2 * EXPECTED, False),
        (np.concatenate([GIVEN, EXPECTED], 1), True),
        (np.concatenate([EXPECTED, GIVEN], 1), True),
        (np.concatenate([GIVEN, 2 * EXPECTED], 1), False),
        (EXPECTED[:, :2], False),
        (np.repeat(np.concatenate([GIVEN, EXPECTED], 1), 2, 2), False),
        (EXPECTED[..., None], False),
    ],
)
def test_a_call_that_goes_on_with_what_is_expected(made, told):
    assert _goes_on(made, EXPECTED) is told


def test_findings_are_told_as_they_show():
    calls = {"(model)": "", "stem": "(model)", "stem.norm": "stem", "head": "(model)"}
    places = {label: {"parent": parent} for label, parent in calls.items()}
    late = Finding("(model)", "head/in", "what it hands to head", 1.0, False, "head")
    inside = Finding("stem.norm", "stem.norm/out", "its output", 1.0, False)
    around = Finding("stem", "stem/out", "its output", 1.0, False)
    back = Finding("stem", "grad/stem.weight", "the gradient", 1.0, True)
    last = Finding("(model)", "(model)/out", "its output", 1.0, False)
    assert sorted([last, back, late, inside, around], key=_time(places)) == [inside, around, late, last, back]
