"""What the hooks record of a model, on both sides: everything once, in call order, and without changing a bit."""

import json
from pathlib import Path

import numpy as np
import pytest

from align.record.store import Store

PROBE = Path(__file__).with_name("observer_probe.py")
X = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])
WEIGHT = np.array([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
BIAS = np.array([0.5, -0.5, 0.0])
COTANGENT = np.arange(1.0, 7.0).reshape(2, 3)


def linear(value):
    return value @ WEIGHT.T + BIAS


def relu(value):
    return np.maximum(value, 0)


@pytest.fixture(scope="session", params=["torch", "paddle"])
def probed(request, run_python, tmp_path_factory):
    """All scenarios of the probe on one side, in one process: their folder, and what it printed of each."""
    folder = tmp_path_factory.mktemp(request.param)
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    result = run_python(code, PROBE, request.param, folder)
    return folder, json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def recorded(probed):
    """The store of a scenario (None if it was not finished), and what the scenario told."""
    folder, told = probed

    def of(scenario):
        index = folder / f"{scenario}.index.jsonl"
        return Store(folder, scenario) if index.exists() else None, told.get(scenario)

    return of


def names(store, prefix="activation/"):
    return [name.removeprefix(prefix) for name in store if name.startswith(prefix)]


def aliases(store):
    return {name: entry.facts["same_as"] for name, entry in store.entries.items() if entry.facts}


def test_every_input_output_and_gradient_in_call_order(recorded):
    store, told = recorded("order")
    assert names(store) == [
        *("(model)/in", "both/in", "both.before/in", "both.before/out", "both.after/in", "both.after/out"),
        *("both/out", "act/in", "act/out", "(model)/out"),
    ]
    expected = {
        "both.before/out": linear(X),
        "both.after/out": linear(linear(X)),
        "act/out": 2 * linear(linear(X)),
        "(model)/out": 2 * linear(linear(X)) + 1,
    }
    for name, value in expected.items():
        assert store[f"activation/{name}"].tolist() == value.tolist()
    gradients = {
        "(model)/out": COTANGENT,
        "act/out": COTANGENT,
        "both/out": 2 * COTANGENT,
        "both.after/out": 2 * COTANGENT,
        "both.after/in": 2 * COTANGENT @ WEIGHT,
        "both.before/out": 2 * COTANGENT @ WEIGHT,
        **dict.fromkeys(("both.before/in", "both/in", "(model)/in"), 2 * COTANGENT @ WEIGHT @ WEIGHT),
    }
    gradients["act/in"] = gradients["both/out"]
    assert set(names(store, "activation_grad/")) == set(gradients)
    for name, value in gradients.items():
        assert store[f"activation_grad/{name}"].tolist() == value.tolist()
    assert {entry.kind for entry in store.entries.values()} == {"input", "activation", "gradient"}
    assert told["hooks"] == 0


def test_what_one_module_hands_to_the_next_is_written_once(recorded):
    store, _ = recorded("order")
    same = {
        "both/in": "(model)/in",
        "both.before/in": "(model)/in",
        "both.after/in": "both.before/out",
        "both/out": "both.after/out",
        "act/in": "both.after/out",
    }
    prefixes = ("activation/", "activation_grad/")
    assert aliases(store) == {prefix + name: prefix + first for name, first in same.items() for prefix in prefixes}


def test_the_gradients_of_inputs_that_are_no_output(recorded):
    store, _ = recorded("boundaries")
    scale = np.array([1.0, 2.0, 3.0])
    k = linear(np.concatenate([linear(X) + scale, X])).reshape(2, 2, 3)
    into_k = np.stack([COTANGENT * scale] * 2)
    into_h = into_k.reshape(4, 3) @ WEIGHT
    into_x = into_h[:2] @ WEIGHT + into_h[2:]
    gradients = {
        **dict.fromkeys(("last/out", "(model)/out"), COTANGENT),
        "last/in/0": into_k,
        # The parameter's whole gradient: of both places that read it.
        "last/in/1/scale": (k.sum(0) * COTANGENT).sum(0) + into_h[:2].sum(0),
        "second/out": into_k.reshape(4, 3),
        **dict.fromkeys(("second/in", "same/out", "same/in"), into_h),
        "first/out": into_h[:2],
        **dict.fromkeys(("first/in", "(model)/in"), into_x),
    }
    assert set(names(store, "activation_grad/")) == set(gradients)
    for name, value in gradients.items():
        assert store[f"activation_grad/{name}"].tolist() == value.tolist(), name
    same = {"(model)/out": "last/out", "second/in": "same/out", "first/in": "(model)/in"}
    found = {name: first for name, first in aliases(store).items() if name.startswith("activation_grad/")}
    assert found == {f"activation_grad/{name}": f"activation_grad/{first}" for name, first in same.items()}


def test_an_output_that_nothing_is_computed_from_has_a_gradient_of_zeros(recorded):
    store, _ = recorded("one_of_two")
    assert store["activation_grad/inner/out/0"].tolist() == COTANGENT.sum(0).tolist()
    assert store["activation_grad/inner/out/1"].tolist() == [0.0, 0.0, 0.0]


def test_no_hook_stays_on_a_parameter_or_an_input(recorded):
    """Or a later backward would be told to a store that may be closed by then."""
    store, _ = recorded("further_backward")
    assert {"(model)/in", "sum/in/0", "sum/in/1"} <= set(names(store, "activation_grad/"))
    assert not [name for name in store if "#" in name]


def test_the_calls_of_one_module_are_kept_apart(recorded):
    store, _ = recorded("twice")
    assert names(store) == [
        *("(model)/in", "fc/in", "fc/out", "fc#1/in", "fc#1/out", "fc#2/in", "fc#2/out", "(model)/out"),
    ]
    value, gradient = X, COTANGENT
    for label in ("fc", "fc#1", "fc#2"):
        value = linear(value)
        assert store[f"activation/{label}/out"].tolist() == value.tolist()
    for label in ("fc#2", "fc#1", "fc"):
        assert store[f"activation_grad/{label}/out"].tolist() == gradient.tolist()
        gradient = gradient @ WEIGHT


def test_nested_values_are_flattened_by_path(recorded):
    store, _ = recorded("nested")
    assert names(store) == [
        *("(model)/in", "outer/in", "outer.inner/in/0", "outer.inner/in/1/table/k"),
        *("outer.inner/out/0/b", "outer.inner/out/0/deep/0", "outer.inner/out/0/deep/1/0", "outer.inner/out/1"),
        *("outer/out", "single/in", "single/out", "(model)/out"),
    ]
    factors = {"in/1/table/k": 5, "out/0/b": 1, "out/0/deep/0": 2, "out/0/deep/1/0": 3, "out/1": 4}
    for name, factor in factors.items():
        assert store[f"activation/outer.inner/{name}"].tolist() == (factor * X).tolist()


@pytest.mark.parametrize(
    ("scenario", "paths"),
    [("attributes", {"logits": 2, "extra/k": 3}), ("slots", {"logits": 2})],
)
def test_dataclasses_are_flattened_by_field(recorded, scenario, paths):
    store, _ = recorded(scenario)
    assert [name for name in names(store) if "inner/out" in name] == [f"inner/out/{path}" for path in paths]
    for path, factor in paths.items():
        assert store[f"activation/inner/out/{path}"].tolist() == (factor * X).tolist()


def test_a_module_that_overwrites_its_input(recorded):
    store, _ = recorded("in_place")
    assert store["activation/fc1/out"].tolist() == linear(X).tolist()
    assert store["activation/act/in"].tolist() == linear(X).tolist()
    assert store["activation/act/out"].tolist() == relu(linear(X)).tolist()
    assert aliases(store)["activation/act/in"] == "activation/fc1/out"
    assert aliases(store)["activation/fc2/in"] == "activation/act/out"
    behind = COTANGENT @ WEIGHT
    assert store["activation_grad/act/out"].tolist() == behind.tolist()
    assert store["activation_grad/fc1/out"].tolist() == (behind * (linear(X) > 0)).tolist()


def test_a_caller_that_overwrites_an_output(recorded):
    store, _ = recorded("in_place_between")
    assert store["activation/first/out"].tolist() == (2 * X).tolist()
    assert store["activation/second/in"].tolist() == (2 * X + 1).tolist()


def test_an_output_overwritten_through_a_view(recorded):
    store, _ = recorded("in_place_through_a_view")
    assert store["activation/first/out"].tolist() == (2 * X).tolist()
    # What the framework itself computed from it says what the input was.
    assert store["activation/second/in"].tolist() == (store["activation/second/out"] / 2).tolist()


def test_no_hook_stays_if_the_forward_raises(recorded):
    store, told = recorded("raises")
    assert store is None
    assert told == {"hooks": 0}


def test_a_pass_that_was_given_up_is_freed(recorded):
    _, told = recorded("let_go")
    assert told == {"error": "Overwritten", "alive": False}


def test_no_hook_stays_if_the_backward_raises(recorded):
    store, told = recorded("raises_in_backward")
    assert store is None
    assert told["hooks"] == 0
    assert "in the backward" in told["error"]


def test_a_module_that_raises_where_its_caller_goes_on(recorded):
    store, _ = recorded("caught")
    assert names(store) == [
        *("(model)/in", "chosen/in", "chosen.fails/in", "chosen.fails.deeper/in"),
        *("chosen.instead/in", "chosen.instead/out", "chosen/out", "last/in", "last/out", "(model)/out"),
    ]
    assert store["activation/last/out"].tolist() == linear(linear(X)).tolist()


def test_a_second_backward_through_the_same_forward(recorded):
    store, _ = recorded("backward_twice")
    first = {"(model)/in", "fc/in", "fc/out", "(model)/out"}
    assert set(names(store, "activation_grad/")) == first | {f"{name}#1" for name in first}


def test_outputs_that_are_no_tensors_or_odd_ones(recorded):
    store, _ = recorded("odd_outputs")
    outputs = {name.removesuffix("/out"): store[f"activation/{name}"] for name in names(store) if name.endswith("/out")}
    assert set(outputs) == {"integers", "booleans", "empty", "scalar", "(model)"}
    assert outputs["integers"].tolist() == X.argmax(-1).tolist()
    assert outputs["booleans"].tolist() == (X > 0).tolist()
    assert outputs["empty"].shape == (0, 3)
    assert (outputs["scalar"].shape, float(outputs["scalar"])) == ((), X.sum())
    assert "unused/in" not in names(store)


def test_a_model_without_modules_in_it(recorded):
    store, _ = recorded("without_modules")
    assert sorted(names(store)) == sorted(names(store, "activation_grad/")) == ["(model)/in", "(model)/out"]


def test_only_the_modules_that_were_asked_for(recorded):
    store, _ = recorded("only")
    assert names(store) == [
        *("first.fc/in", "first.fc/out", "first.norm/in", "first.norm/out", "second/in", "second/out")
    ]
    assert set(names(store, "activation_grad/")) == set(names(store))


def test_no_gradients_where_none_flow(recorded):
    store, _ = recorded("without_gradient")
    assert names(store, "activation_grad/") == []
    assert store["activation/fc/out"].tolist() == linear(X).tolist()


def test_tensors_that_do_not_count_their_writes(recorded):
    store, told = recorded("inference_mode")
    if told is None:
        pytest.skip("paddle has no inference mode")
    assert store["activation/first/out"].tolist() == (2 * X).tolist()
    assert store["activation/second/in"].tolist() == (2 * X + 1).tolist()


IN_PLACE = ("in_place", "in_place_between", "in_place_through_a_view")
LASTING = ("parameters_optimized", "views_optimized", "gradients_cleared", "gradients_accumulated", "input_accumulated")
OTHERS = (
    *("order", "twice", "nested", "attributes", "slots", "caught", "backward_twice", "odd_outputs", "without_modules"),
    *("only", "statistics", "residual", "boundaries", "one_of_two"),
)


@pytest.mark.parametrize("scenario", [*OTHERS, *LASTING])
def test_views_of_memory_hold_what_copies_do_however_late_they_are_written(recorded, scenario):
    """Also where an optimizer, batch normalisation or a second backward has written there meanwhile."""
    copies, told = recorded(scenario)
    assert told["overwritten"] is None
    views, _ = recorded(f"{scenario}.views")
    assert [name for name in views if name != "plug"] == list(copies)
    for name in copies:
        assert views[name].tobytes() == copies[name].tobytes(), name


@pytest.mark.parametrize("scenario", IN_PLACE)
def test_what_was_overwritten_before_it_was_written_is_told(recorded, scenario):
    _, told = recorded(scenario)
    assert told["overwritten"] in ("activation/fc1/out", "activation/first/out")


def test_a_running_variance_is_recorded_as_it_was_at_each_call(recorded):
    store, _ = recorded("statistics")
    first, second = store["activation/told/out"], store["activation/told#1/out"]
    assert not np.allclose(first, second)
    assert np.all(first != 1.0)


def test_recording_does_not_change_a_bit(recorded):
    """Outputs, the gradient of the input and of every parameter of PiT."""
    _, told = recorded("effect")
    assert set(told) == {f"{dtype} {training}" for dtype in ("float32", "float64") for training in (False, True)}
    for runs in told.values():
        for equal in runs:
            assert len(equal) > 60
            assert all(equal)
