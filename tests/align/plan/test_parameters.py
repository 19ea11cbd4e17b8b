"""Pairing a port's tensors: whatever they are called and in whatever order they stand, the right ones are found."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.plan.parameters import Tensor, pair
from align.plan.weights import by_shape, fused
from align.record.sketch import WIDTH, sketch
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


def attention(split: bool, order: str, spoiled: bool = False, width: int = 4) -> list[Tensor]:
    """A fused or split projection and its output projection of the same shape as each part."""
    rng = np.random.default_rng(5)
    parts = {name: rng.standard_normal((width, width)) for name in "qkv"}
    biases = {name: rng.standard_normal(width) * (name != "k") for name in "qkv"}  # a key's bias has no gradient
    out = Tensor("attn.out_proj.weight", (width, width), "parameter", "Linear", sketched(9))
    if split:

        def one(name: str, kind: str, array: np.ndarray) -> Tensor:
            print_ = sketch(str(array.shape), array + (rng.standard_normal(array.shape) if spoiled else 0))
            return Tensor(f"self_attn.{name}_proj.{kind}", array.shape, "parameter", "Linear", tuple(print_))

        own = replace(out, name="self_attn.out_proj.weight")
        told = {"weight": parts, "bias": biases}
        return [*(one(name, kind, told[kind][name]) for name in order for kind in told), own]

    def whole(kind: str, arrays: dict[str, np.ndarray]) -> Tensor:
        array = np.concatenate([arrays[name] for name in "qkv"])
        each = tuple(tuple(sketch(str(part.shape), part)) for part in (arrays[name] for name in "qkv"))
        print_ = tuple(sketch(str(array.shape), array))
        return Tensor(f"attn.in_proj_{kind}", array.shape, "parameter", "MultiheadAttention", print_, each)

    return [whole("weight", parts), whole("bias", biases), out]


@pytest.mark.parametrize("order", ["qkv", "vkq", "kqv"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_fused_projection_is_found_by_value_in_whatever_order_its_parts_stand(order, turned):
    fused_one, split = attention(False, order), attention(True, order)
    found = pair(split, fused_one, {}) if turned else pair(fused_one, split, {})
    joined = " + ".join(f"self_attn.{name}_proj.weight" for name in "qkv")
    wanted = (joined, "attn.in_proj_weight") if turned else ("attn.in_proj_weight", joined)
    assert (wanted[0], found.parameters[wanted[0]]) == wanted
    assert found.matched_by[wanted[0]] == "value"
    assert found.unpaired == {"torch": (), "paddle": ()}
    assert any("k_proj.bias" in name + own for name, own in found.parameters.items())


def test_spoiled_parts_are_taken_in_their_order_and_the_output_projection_is_left_out():
    found = pair(attention(False, "qkv"), attention(True, "qkv", spoiled=True), {})
    assert found.parameters["attn.in_proj_weight"] == " + ".join(f"self_attn.{n}_proj.weight" for n in "qkv")
    assert found.matched_by["attn.in_proj_weight"] == "order"
    assert found.parameters["attn.out_proj.weight"] == "self_attn.out_proj.weight"


def test_weights_by_shape_are_the_same_whether_a_projection_is_fused_or_split():
    def specs(shapes):
        return [Spec(name, shape, "parameter", "Linear") for name, shape in shapes.items()]

    whole = specs({"a.in_proj_weight": (12, 4), "a.in_proj_bias": (12,), "a.out.weight": (4, 4)})
    parts = specs({"q.weight": (4, 4), "q.bias": (4,), "k.weight": (4, 4), "k.bias": (4,)})
    one, other = by_shape(whole, 3), by_shape(parts, 3)
    np.testing.assert_array_equal(one["a.in_proj_weight"], np.concatenate([other["q.weight"]] * 3))
    np.testing.assert_array_equal(one["a.in_proj_bias"], np.concatenate([other["k.bias"]] * 3))
    assert fused(whole) == {"a.in_proj_weight": 3, "a.in_proj_bias": 3}
    assert fused(parts) == {}
