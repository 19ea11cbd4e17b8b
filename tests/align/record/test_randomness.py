"""One tape answers every random function of both frameworks with the same numbers, and leaves no trace behind."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.record.randomness import CELLS, Tape

PROBE = Path(__file__).with_name("randomness_probe.py")
SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)
# Rates that fall on the middle of a cell are the tape's own numbers: there a threshold is met exactly.
RATES = st.floats(0.01, 0.99).filter(lambda rate: abs((rate * CELLS) % 1 - 0.5) > 0.02)


@pytest.fixture(scope="module")
def probed(run_python):
    """What the probe told of each side."""
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return {side: json.loads(run_python(code, PROBE, side).stdout.splitlines()[-1]) for side in ("torch", "paddle")}


@given(st.integers(0, 2**31), SHAPES, RATES)
def test_three_idioms_make_one_mask(seed, shape, rate):
    mask = Tape(seed, "a").bernoulli(1 - rate, shape)
    for dtype in (np.float32, np.float64):
        uniform = Tape(seed, "a").uniform(shape).astype(dtype)
        np.testing.assert_array_equal(np.floor(dtype(1 - rate) + uniform) == 1, mask)
        np.testing.assert_array_equal(uniform >= dtype(rate), mask)


@given(st.integers(0, 2**31), SHAPES)
def test_an_answer_is_known_by_seed_scope_call_and_place(seed, shape):
    def second(seed, scope, module, first="uniform"):
        tape = Tape(seed, scope)
        tape.running = lambda: module
        tape.permutation(3) if first == "permutation" else tape.uniform((2,))
        return tape.normal((4, *shape)).tolist()

    told = second(seed, "scope", "module")
    assert told == second(seed, "scope", "module", first="permutation")
    assert told != second(seed + 1, "scope", "module")
    assert told != second(seed, "other", "module")
    assert told != second(seed, "scope", "other")


def test_answers_lie_within_their_bounds_and_follow_their_law():
    tape = Tape(1, "law")
    uniform = tape.uniform((100_000,), 2.0, 4.0)
    assert 2 < uniform.min() < uniform.max() < 4
    assert abs(uniform.mean() - 3) < 6 * 2 / math.sqrt(12 * 100_000)
    normal = tape.normal((100_000,), 5.0, 0.5)
    assert abs(normal.mean() - 5) < 6 * 0.5 / math.sqrt(100_000)
    assert abs(normal.std() - 0.5) < 6 * 0.5 / math.sqrt(200_000)
    assert set(tape.integers(3, 6, (1000,)).tolist()) == {3, 4, 5}
    assert sorted(tape.permutation(50).tolist()) == list(range(50))
    assert abs(tape.bernoulli(0.3, (100_000,)).mean() - 0.3) < 6 * math.sqrt(0.21 / 100_000)


def test_choices_are_by_weight_and_without_replacement_distinct():
    weights = np.array([1.0, 0.0, 3.0])
    with_replacement = Tape(1, "choice").choice(weights, 10_000, True)
    counts = np.bincount(with_replacement, minlength=3)
    assert counts[1] == 0
    assert abs(counts[2] / 10_000 - 0.75) < 6 * math.sqrt(0.75 * 0.25 / 10_000)
    without = Tape(1, "choice").choice(np.tile(weights, (10_000, 1)), 2, False)
    assert {tuple(sorted(pair)) for pair in without.tolist()} == {(0, 2)}
    assert abs((without[:, 0] == 2).mean() - 0.75) < 6 * math.sqrt(0.75 * 0.25 / 10_000)


def test_what_is_certain_is_no_draw():
    tape = Tape(1, "certain")
    assert tape.bernoulli(1.0, (2, 2)).all()
    assert not tape.bernoulli(np.array([0.0, 0.0]), (2,)).any()
    assert tape.log == []


def test_each_function_answers_alike_on_both_sides(probed):
    ours, theirs = probed["paddle"]["drawn"], probed["torch"]["drawn"]
    assert ours.keys() == theirs.keys()
    for name in theirs:
        # Paddle computes SELU's constants in float32.
        tolerance = 1e-6 if name == "alpha_dropout" else 0
        np.testing.assert_allclose(ours[name]["values"], theirs[name]["values"], tolerance, tolerance, err_msg=name)
        shapes = [[draw[3] for draw in side[name]["draws"]] for side in (ours, theirs)]
        assert shapes[0] == shapes[1], name
        if name not in ("dropout2d", "alpha_dropout"):  # these compare uniform numbers in Paddle
            assert ours[name]["draws"] == theirs[name]["draws"], name


def test_a_draw_is_logged_with_what_was_asked_for(probed):
    for told in probed.values():
        drawn = told["drawn"]
        assert drawn["uniform_"]["draws"] == [["", 0, "uniform", [3], {"low": 2.0, "high": 5.0}]]
        assert drawn["normal"]["draws"] == [["", 0, "normal", [3], {"mean": 1.0, "std": 2.0}]]
        assert drawn["dropout"]["draws"] == [["", 0, "mask", [4, 3], {"keep": 0.75}]]
        assert drawn["randint"]["draws"] == [["", 0, "integers", [4], {"low": 2, "high": 9}]]
        for certain in ("dropout_off", "dropout_of_nothing", "kept_for_certain"):
            assert drawn[certain]["draws"] == []
            assert set(np.ravel(drawn[certain]["values"])) == {1.0}


def test_everything_is_put_back(probed):
    for told in probed.values():
        assert told["restored"] == {name: [True, True] for name in ("good", "raising", "unanswered")}


def test_outside_the_block_the_frameworks_draw_as_ever(probed):
    for told in probed.values():
        own = told["own_afterwards"]
        assert own["plain"] == own["after"] == own["going_on"]
        assert own["taped"] != own["plain"]
        assert own["seeded"][0] == own["seeded"][1] != own["plain"]
    assert probed["torch"]["own_afterwards"]["plain"] != probed["paddle"]["own_afterwards"]["plain"]


def test_draws_are_named_by_module_call(probed):
    expected = ["", "drop", "drop#1", "child", "(model)", "last"]
    for told in probed.values():
        assert [draw[0] for draw in told["modules"]["whole"]["draws"]] == expected
        assert [draw[1] for draw in told["modules"]["whole"]["draws"]] == [0] * 6


def test_a_draw_that_is_missing_shifts_no_other(probed):
    for told in probed.values():
        whole, without = told["modules"]["whole"], told["modules"]["without"]
        assert [draw[0] for draw in without["draws"]] == ["", "drop", "drop#1", "(model)", "last"]
        assert whole["last"] == without["last"]
        assert set(whole["last"]) == {True, False}
    assert probed["torch"]["modules"] == probed["paddle"]["modules"]


def test_unlike_trees_draw_in_order(probed):
    for told in probed.values():
        assert [draw[:2] for draw in told["unlike"]] == [["", index] for index in range(4)]


def test_numbers_depend_on_neither_dtype_nor_perturbation(probed):
    first = probed["torch"]["dtypes"]["float32"]
    assert set(first[0]) == {0.0, 1.0}
    for told in probed.values():
        for dtype, numbers in told["dtypes"].items():
            assert numbers == first, dtype


def test_what_cannot_be_answered_is_named_with_its_module(probed):
    for side in ("torch", "paddle"):
        told = probed[side]["unanswered"]
        for kernel in ("poisson", "binomial"):
            assert told[kernel].startswith(f"{side}: {kernel} draws random numbers in 1, and no answer")
            assert "set its rate to 0" in told[kernel]


def test_gradients_pass_masks_and_stop_at_what_was_overwritten(probed):
    fused = probed["torch"]["gradients"].pop("fused")
    assert probed["torch"]["gradients"] == probed["paddle"]["gradients"]
    assert fused == probed["torch"]["gradients"]["dropped"]
    assert set(np.ravel(probed["paddle"]["gradients"]["dropped"])) == {0.0, 2.0}
    assert probed["paddle"]["gradients"]["overwritten"] == [1.0, 1.0, 1.0]


def test_paddles_own_modes_of_dropout(probed):
    told = probed["paddle"]["only_here"]
    rows = {tuple(row) for row in told["axis"]}
    assert rows == {(0.0, 0.0, 0.0), (2.0, 2.0, 2.0)}
    assert set(told["downscale_in_infer"]) == {0.0, 1.0}
    assert told["downscaled"] == [[0.75, 0.75], [0.75, 0.75]]
