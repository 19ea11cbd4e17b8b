"""The proof itself: what is applied, in which order, and what counts."""

import numpy as np
import pytest

from align.diagnose import Evidence, Hypothesis, Treatment, diagnose
from align.diagnose import prove as module
from align.diagnose.families import families

X = np.arange(20.0) + 1


class Family:
    """A family that proposes what it was given, and counts how far it was asked."""

    def __init__(self, name, *hypotheses):
        self.__name__, self.RANK, self._hypotheses, self.asked = name, 0, hypotheses, 0

    def propose(self, evidence):
        for hypothesis in self._hypotheses:
            self.asked += 1
            yield hypothesis


@pytest.fixture
def registry(monkeypatch):
    def replaced(*made):
        monkeypatch.setattr(module, "families", lambda: made)

    return replaced


def evidence(name="x"):
    return Evidence("forward", name, 2 * X, X)


def test_every_family_has_a_rank_and_they_come_in_its_order():
    ranks = [family.RANK for family in families()]
    assert ranks == sorted(ranks)
    assert len(ranks) > 10
    assert families()[0].__name__.endswith(".configuration")


def test_the_first_that_holds_is_the_cause_and_no_other_is_asked(registry):
    first = Family("first", Hypothesis("wrong", "w", made=3 * X, wanted=X))
    second = Family("second", Hypothesis("right", "r", made=X.copy(), wanted=X), Hypothesis("late", "l", X, X))
    third = Family("third", Hypothesis("never", "n", X, X))
    registry(first, second, third)
    (found,) = diagnose([[evidence()]])
    assert (found.id, found.text, found.explained, found.family) == ("right", "r: explains 100.0 %", 1, "second")
    assert (first.asked, second.asked, third.asked) == (1, 1, 0)


@pytest.mark.parametrize(("left", "holds"), [(1e-13, True), (1e-9, False), (1e-3, False), (0.5, False)])
def test_what_leaves_more_than_noise_is_no_cause(registry, left, holds):
    registry(Family("one", Hypothesis("c", "c", made=X * (1 + left), wanted=X)))
    assert (diagnose([[evidence()]])[0] is not None) is holds


class Broken:
    __name__, RANK = "broken", 0

    def propose(self, evidence):
        yield Hypothesis("wrong", "w", made=3 * X, wanted=X)
        raise TypeError("numpy boolean subtract")


def test_a_family_that_cannot_cope_does_not_keep_the_others_from_being_asked(registry):
    registry(Broken(), Family("second", Hypothesis("right", "r", made=X.copy(), wanted=X)))
    with pytest.warns(RuntimeWarning, match="broken gave up: TypeError: numpy boolean subtract"):
        (found,) = diagnose([[evidence()]])
    assert found.id == "right"


def test_where_there_is_no_error_there_is_no_cause(registry):
    registry(Family("one", Hypothesis("c", "c", made=X, wanted=X)))
    assert diagnose([[Evidence("forward", "x", X, X)]]) == [None]


def test_a_fit_to_as_many_elements_as_it_has_numbers_says_nothing(registry):
    registry(Family("one", Hypothesis("c", "c", made=X[:5], wanted=X[:5], fitted=2)))
    assert diagnose([[Evidence("forward", "x", 2 * X[:5], X[:5])]]) == [None]


def treatments(count):
    return [Hypothesis(f"t{k}", "t", treatment=Treatment("m", {"a": k})) for k in range(count)]


def test_treatments_of_all_cases_share_a_replay(registry):
    registry(Family("one", Hypothesis("t", "t", treatment=Treatment("m", {"a": 1}))))
    replays = []

    def treat(chosen):
        replays.append(chosen)
        return {"x": X, "y": X, "z": 2 * X}

    found = diagnose([[evidence(name)] for name in "xyz"], treat)
    assert [cause and cause.id for cause in found] == ["t", "t", None]
    assert [len(chosen) for chosen in replays] == [3]


def test_one_module_is_treated_in_one_way_at_a_time(registry):
    """Two cases of one module whose hypotheses differ take turns."""
    replays = []

    class PerName(Family):
        def propose(self, evidence):
            yield Hypothesis("t", "t", treatment=Treatment("m", {"a": evidence.name}))

    def treat(chosen):
        replays.append([treatment.attributes["a"] for treatment in chosen])
        return {"x": X, "y": X}

    registry(PerName("one"))
    assert all(diagnose([[evidence("x")], [evidence("y")]], treat))
    assert replays == [["x"], ["y"]]


def test_a_treatment_that_makes_the_port_raise_is_left_out(registry):
    """Together they raise; each alone, one of them still does."""
    replays = []

    class PerName(Family):
        def propose(self, evidence):
            yield Hypothesis("t", "t", treatment=Treatment(evidence.name, {"a": 1}))

    def treat(chosen):
        replays.append(len(chosen))
        return None if any(treatment.module == "x" for treatment in chosen) else {"x": X, "y": X}

    registry(PerName("one"))
    found = diagnose([[evidence("x")], [evidence("y")]], treat)
    assert [cause and cause.id for cause in found] == [None, "t"]
    assert replays == [2, 1, 1]


def test_without_a_port_to_treat_only_numbers_are_asked(registry):
    registry(Family("one", *treatments(2), Hypothesis("n", "n", made=X, wanted=X)))
    assert diagnose([[evidence()]])[0].id == "n"
