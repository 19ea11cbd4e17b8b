"""What is judged against what: by the user's mapping, by name, and inside unlike models by order and value."""

import numpy as np
import pytest

from align.compare.runs import compare_runs
from align.compare.waivers import Exceptions
from tests.align.compare.conftest import Tensor, normal


@pytest.fixture
def inner(bench):
    """A pair with two activations beside its result: `activation/a/out` and `activation/b/out`."""
    for seed, name in enumerate("ab", 1):
        bench.truth[f"activation/{name}/out"] = normal(200, seed=seed)
        bench.kinds[f"activation/{name}/out"] = "activation"
    return bench


def rename(bench, names, change=lambda array: array):
    """Let the port record tensors under other names: the new ones by the reference's."""
    for old, new in names.items():
        for given, seed, dtype in ((bench.port, 2, "float32"), (bench.port_twin, 3, "float64")):
            given.setdefault(old, None)
            given[new] = Tensor(change(bench.rounded(old, seed, dtype)), "activation")


def judged(bench, mapping=None):
    """(verdict, how it was matched) by row."""
    verdict = compare_runs(bench.runs(), Exceptions(), mapping=mapping)
    return {row.name: (row.verdict, row.matched_by) for row in verdict.rows}


def test_names_that_agree(inner):
    assert set(judged(inner).values()) == {("aligned", "name")}


def test_other_names_in_the_same_order(inner):
    rename(inner, {"activation/a/out": "activation/c/out", "activation/b/out": "activation/d/out"})
    assert judged(inner) == {
        "x": ("aligned", "name"),
        "activation/a/out": ("aligned", "order"),
        "activation/b/out": ("aligned", "order"),
    }


def test_other_names_in_another_order(inner):
    rename(inner, {"activation/b/out": "activation/c/out", "activation/a/out": "activation/d/out"})
    assert {how for _, how in judged(inner).values()} == {"name", "value"}


def test_a_value_that_is_only_near_is_not_paired(inner):
    """Order and shape propose it, the elements refuse: both are reported, and innocent only as the result is right."""
    names = {"activation/a/out": "activation/c/out", "activation/b/out": "activation/d/out"}
    rename(inner, names, lambda array: array * (1 + 1e-4))
    expected = dict.fromkeys([*names, *names.values()], ("noted", None))
    assert judged(inner) == {"x": ("aligned", "name")} | expected
    inner.port["x"] = inner.port_twin["x"] = inner.truth["x"] + 1
    assert {row.verdict for row in inner.verdict().rows if row.name != "x"} == {"missing"}


def test_gradients_are_no_values_and_inputs_no_outputs(inner):
    rename(inner, {"activation/a/out": "activation_grad/c/out", "activation/b/out": "activation/d/in"})
    assert {how for _, how in judged(inner).values()} == {"name", None}


def test_results_are_matched_by_name_alone(bench):
    bench.port["x"] = bench.port_twin["x"] = None
    for given, seed, dtype in ((bench.port, 2, "float32"), (bench.port_twin, 3, "float64")):
        given["y"] = bench.rounded("x", seed, dtype)
    assert judged(bench) == {"x": ("missing", None), "y": ("missing", None)}


def test_a_name_with_another_shape_is_another_thing_in_another_tree(inner):
    rename(inner, {"activation/a/out": "activation/b/out", "activation/b/out": "activation/c/out"})
    for given in (inner.port, inner.port_twin):
        given["activation/a/out"] = None
        given["activation/b/out"] = Tensor(np.ones((2, 3), given["activation/c/out"].array.dtype), "activation")
    told = judged(inner)
    assert told["activation/b/out"] == ("aligned", "value")
    assert told["activation/b/out (port)"] == told["activation/a/out"] == ("noted", None)


def test_two_names_of_one_value(inner):
    """Where the reference hands a value through a module that the port does not have."""
    inner.truth["activation/b/out"] = inner.truth["activation/a/out"]
    rename(inner, {"activation/b/out": "activation/c/in"})
    assert judged(inner)["activation/b/out"] == ("aligned", "value")


def test_a_mapping_wins_over_names(inner):
    """The port's `b` has the reference's `a` inside, which no name says."""
    rename(inner, {"activation/a/out": "activation/c/out"})
    inner.port["activation/a/out"] = inner.port_twin["activation/a/out"] = Tensor(normal(200, seed=9), "activation")
    assert judged(inner)["activation/a/out"][0] == "noted"
    told = judged(inner, {"modules": {"a": "c"}})
    assert told["activation/a/out"] == ("aligned", "override")
    assert told["activation/a/out (port)"] == ("noted", None)


def test_a_mapping_holds_for_what_is_inside_a_module(bench):
    bench.truth["activation/a.fc#1/out"] = normal(200, seed=1)
    rename(bench, {"activation/a.fc#1/out": "activation/stage.fc#1/out"}, lambda array: array + 1)
    assert judged(bench, {"modules": {"a": "stage"}})["activation/a.fc#1/out"] == ("noted", "override")


def test_a_mapping_of_parameters(bench):
    bench.truth["grad/a.weight"] = normal(200, seed=1)
    bench.port["grad/a.weight"] = bench.port_twin["grad/a.weight"] = None
    for given, seed, dtype in ((bench.port, 2, "float32"), (bench.port_twin, 3, "float64")):
        given["grad/b.weight"] = bench.rounded("grad/a.weight", seed, dtype)
    assert judged(bench, {"parameters": {"a.weight": "b.weight"}})["grad/a.weight"] == ("aligned", "override")
