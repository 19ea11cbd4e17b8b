"""Pairing a port's tensors: whatever they are called and in whatever order they stand, the right ones are found."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.plan.parameters import Tensor, pair
from align.plan.weights import by_shape
from align.record.sketch import WIDTH
from align.sides import Spec

SEEDS = st.integers(0, 2**20)


def sketched(seed: int) -> tuple[float, ...]:
    return tuple(np.random.default_rng(seed).standard_normal(WIDTH))


def linear(name: str, number: int, width: int = 4) -> list[Tensor]:
    """A weight and a bias whose gradients no other layer has."""
    return [
        Tensor(f"{name}.weight", (width, width), "parameter", "Linear", sketched(2 * number)),
        Tensor(f"{name}.bias", (width,), "parameter", "Linear", sketched(2 * number + 1)),
    ]


def model(names: list[str]) -> list[Tensor]:
    return [tensor for number, name in enumerate(names) for tensor in linear(name, number)]


def rounded(tensors: list[Tensor], seed: int) -> list[Tensor]:
    """As another framework would have them: equal but for float64 rounding."""
    rng = np.random.default_rng(seed)
    return [
        replace(t, print=t.print and tuple(np.array(t.print) * (1 + 1e-12 * rng.standard_normal(WIDTH))))
        for t in tensors
    ]


@given(SEEDS, st.integers(1, 8))
def test_renamed_and_reordered_tensors_are_found_by_value(seed, count):
    theirs = model([f"blocks.{number}" for number in range(count)])
    ours = rounded(model([f"layer{number}.fc" for number in range(count)]), seed)
    random.Random(seed).shuffle(ours)
    found = pair(theirs, ours, {})
    wanted = {f"blocks.{n}.{last}": f"layer{n}.fc.{last}" for n in range(count) for last in ("weight", "bias")}
    assert found.parameters == wanted
    assert set(found.matched_by.values()) == {"value"}
    assert found.unpaired == {"torch": (), "paddle": ()}


def test_an_unlike_name_is_no_obstacle_and_a_like_name_no_proof():
    """Two layers have exchanged their names: values say which is which, where the sets of names differ."""
    theirs, ours = model(["a", "b", "c"]), model(["b", "a", "d"])
    found = pair(theirs, ours, {})
    assert found.parameters["a.weight"] == "b.weight"
    assert found.parameters["b.weight"] == "a.weight"
    assert found.parameters["c.bias"] == "d.bias"


def test_equal_names_are_trusted_where_all_are_equal():
    """A port that loads a weight into the wrong place must not be helped by pairing its weights otherwise."""
    theirs, ours = model(["a", "b"]), model(["b", "a"])
    ours.sort(key=lambda tensor: tensor.name)
    found = pair(theirs, ours, {})
    assert all(theirs == own for theirs, own in found.parameters.items())
    assert set(found.matched_by.values()) == {"name"}


@given(SEEDS)
def test_spoiled_values_leave_the_order_and_say_so(seed):
    """A bug makes every gradient another: the k-th of a shape and class is taken, and told as a guess."""
    theirs = model(["a", "b", "c"])
    rng = np.random.default_rng([seed, 1])
    ours = [replace(t, print=tuple(rng.standard_normal(WIDTH))) for t in model(["x", "y", "z"])]
    found = pair(theirs, ours, {})
    assert found.parameters == {t.name: o.name for t, o in zip(theirs, ours, strict=True)}
    assert set(found.matched_by.values()) == {"order"}


def test_equals_are_paired_in_their_order_and_unequal_numbers_are_not_guessed():
    """Tied layers have one gradient; three of a shape on one side and two on the other have no order to go by."""
    tied = [replace(t, print=sketched(1)) for t in model(["a", "b"])]
    also = [replace(t, print=sketched(1)) for t in model(["x", "y"])]
    assert pair(tied, also, {}).parameters["b.weight"] == "y.weight"
    silent = [replace(t, print=None) for t in model(["a", "b", "c"])]
    fewer = [replace(t, print=None) for t in model(["x", "y"])]
    found = pair(silent, fewer, {})
    assert found.parameters == {}
    assert found.unpaired == {"torch": tuple(t.name for t in silent), "paddle": tuple(t.name for t in fewer)}


def test_what_a_user_says_wins_over_value_and_name():
    theirs, ours = model(["a", "b"]), model(["a", "x"])
    found = pair(theirs, ours, {"a.weight": "x.weight"})
    assert found.parameters["a.weight"] == "x.weight"
    assert found.matched_by["a.weight"] == "override"
    assert found.unpaired["torch"] == ()
    assert found.parameters["b.weight"] == "a.weight"  # what is left, and not its equal


def test_what_has_no_counterpart_is_named():
    found = pair(model(["a", "b"]), model(["x"]), {})
    assert found.parameters == {"a.weight": "x.weight", "a.bias": "x.bias"}
    assert found.unpaired == {"torch": ("b.weight", "b.bias"), "paddle": ()}


def test_nothing_is_turned_to_make_it_fit():
    theirs = [Tensor("a.weight", (3, 5), "parameter", "Linear", sketched(1))]
    ours = [Tensor("x.weight", (5, 3), "parameter", "Linear", sketched(1))]
    assert pair(theirs, ours, {}).parameters == {}


def test_statistics_go_with_the_layer_that_holds_them():
    """Running statistics have no gradient: the paired scale beside them says whose they are."""

    def norm(name, number):
        scale = Tensor(f"{name}.weight", (4,), "parameter", "BatchNorm2d", sketched(number))
        return [scale, Tensor(f"{name}.running_mean", (4,), "buffer", "BatchNorm2d")]

    theirs, ours = [*norm("a", 1), *norm("b", 2)], [*norm("y", 2), *norm("x", 1)]
    found = pair(theirs, ours, {})
    assert found.parameters["a.running_mean"] == "x.running_mean"
    assert found.parameters["b.running_mean"] == "y.running_mean"


def attention(split: bool, width: int = 4) -> list[Tensor]:
    """A fused or split projection, whose parts are given one thing, and an output projection that is given another."""
    rng = np.random.default_rng([5, split])  # gradients that no two tensors share

    def one(name: str, shape: tuple[int, ...], fed: int) -> Tensor:
        return Tensor(name, shape, "parameter", "Linear", tuple(rng.standard_normal(WIDTH)), sketched(fed))

    if not split:
        fused_one = [one("attn.in_proj_weight", (3 * width, width), 1), one("attn.in_proj_bias", (3 * width,), 1)]
        return [*fused_one, one("attn.out_proj.weight", (width, width), 2), one("attn.out_proj.bias", (width,), 2)]
    parts = [
        one(f"self_attn.{name}_proj.{last}", shape, 1)
        for name in "qkv"
        for last, shape in (("weight", (width, width)), ("bias", (width,)))
    ]
    out = [one("self_attn.out_proj.weight", (width, width), 2), one("self_attn.out_proj.bias", (width,), 2)]
    return [*parts, *out]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("last", ["weight", "bias"])
def test_a_fused_projection_is_found_by_what_its_parts_are_given(turned, last):
    """The output projection has the shape of each part, but is given another thing."""
    fused_one, split = attention(False), attention(True)
    found = pair(split, fused_one, {}) if turned else pair(fused_one, split, {})
    joined = " + ".join(f"self_attn.{name}_proj.{last}" for name in "qkv")
    theirs, own = (joined, f"attn.in_proj_{last}") if turned else (f"attn.in_proj_{last}", joined)
    assert found.parameters[theirs] == own
    assert found.matched_by[theirs] == "value"
    assert found.unpaired == {"torch": (), "paddle": ()}


@pytest.mark.parametrize("order", ["qkv", "vkq", "kqv"])
def test_parts_that_are_given_different_things_are_found_by_their_gradients(order):
    """A query, a key and a value of their own: nothing that goes in is alike, and the order of calls may be another."""
    kinds = {name: (f"{name}.weight", (4, 4), "parameter", "Linear", sketched(ord(name))) for name in "qkvo"}
    split = [Tensor(*kinds[name], sketched(ord(name) + 900)) for name in (*order, "o")]
    whole = Tensor(
        *("attn.in_proj_weight", (12, 4), "parameter", "Attention", sketched(1), None),
        parts=tuple(sketched(ord(name)) for name in "qkv"),
    )
    found = pair([whole, Tensor("attn.out.weight", *kinds["o"][1:], None)], split, {})
    assert found.parameters == {"attn.in_proj_weight": "q.weight + k.weight + v.weight", "attn.out.weight": "o.weight"}
    assert set(found.matched_by.values()) == {"value"}


def test_weights_by_shape_are_the_same_whether_a_projection_is_fused_or_split():
    def specs(shapes):
        return [Spec(name, shape, "parameter", "Linear") for name, shape in shapes.items()]

    whole = specs({"a.in_proj_weight": (24, 8), "a.in_proj_bias": (24,)})
    parts = specs({"q.weight": (8, 8), "q.bias": (8,), "k.weight": (8, 8), "k.bias": (8,)})
    one, other = by_shape(whole, 3), by_shape(parts, 3)
    np.testing.assert_array_equal(one["a.in_proj_weight"], np.concatenate([other["q.weight"]] * 3))
    np.testing.assert_array_equal(one["a.in_proj_bias"], np.concatenate([other["k.bias"]] * 3))
