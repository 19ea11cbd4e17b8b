"""The value trace on both sides: nothing left out, nothing changed, and every value from the operation that made it."""

import json
from pathlib import Path

import numpy as np
import pytest

from align.errors import UsageError
from align.record.store import Store
from align.record.trace import read

PROBE = Path(__file__).with_name("trace_probe.py")
X = np.array([[1.0, -2.0, 3.0, 0.5], [-4.0, 5.0, -6.0, 0.25], [0.125, 7.0, -8.0, 1.5]])
PIT = [f"pit_{dtype}_{mode}" for dtype in ("float32", "float64") for mode in ("evaluation", "training")]


@pytest.fixture(scope="session")
def sides(run_python, tmp_path_factory):
    """All scenarios of the probe, each side in one process: its folder, and what it printed of each."""
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    found = {}
    for side in ("torch", "paddle"):
        folder = tmp_path_factory.mktemp(side)
        result = run_python(code, PROBE, side, folder)
        found[side] = folder, json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.fixture(params=["torch", "paddle"])
def side(request):
    return request.param


@pytest.fixture
def told(sides, side):
    return sides[side][1]


@pytest.fixture
def traced(sides, side):
    """The trace and the store of a scenario."""
    return lambda scenario: opened(sides, side, scenario)


def opened(sides, side, scenario):
    folder = sides[side][0]
    return read(folder, scenario), Store(folder, scenario)


def names(trace):
    return [operation.name for operation in trace.operations]


def source_line(text):
    """1-based number of the only line of the probe that holds the text."""
    (number,) = [i for i, line in enumerate(PROBE.read_text().splitlines(), 1) if text in line]
    return number


@pytest.mark.parametrize("scenario", PIT)
def test_a_traced_pass_computes_the_same_bits(told, scenario):
    assert len(told["pit"][scenario]) > 40 and all(told["pit"][scenario])


@pytest.mark.parametrize("scenario", [*PIT, "bert", "bert_training"])
def test_closed_and_complete(traced, scenario):
    trace, store = traced(scenario)
    trace.check()
    made = [number for operation in trace.operations for number in operation.outputs]
    assert len(made) == len(set(made)), "a value was made twice"
    known = {value.number for value in trace.values if value.operation is None}
    for operation in trace.operations:
        assert set(operation.inputs) <= known, f"{operation} reads what is made later"
        known |= set(operation.outputs)
        assert operation.file and operation.line <= operation.end_line and operation.code
    for value in trace.values:
        assert store[value.name].shape == value.shape
        assert store[value.name].dtype.name == value.dtype


@pytest.mark.parametrize("scenario", ["pit_float64_evaluation", "pit_float64_training", "bert"])
def test_every_output_that_the_loss_depends_on_has_its_gradient(traced, scenario):
    trace, store = traced(scenario)
    needed, seen = {trace.operations[-1].index}, set()
    for operation in reversed(trace.operations):
        if operation.index in needed:
            needed |= {trace.values[number].operation for number in operation.inputs if trace.values[number].gradient}
            seen |= {n for n in operation.inputs if trace.values[n].gradient and trace.values[n].operation is not None}
    assert len(seen) > 50
    for number in seen:
        value = trace.values[number]
        assert store[value.gradient_name].shape == value.shape, f"{trace.operations[value.operation]}"


@pytest.mark.parametrize(
    ("scenario", "semantic"),
    [
        ("pit_float64_evaluation", ("conv2d", "layer_norm", "linear", "softmax", "gelu", "matmul", "multiply")),
        ("bert", ("layer_norm", "softmax", "gelu", "embedding", "tanh")),
    ],
)
def test_both_sides_see_the_same_values(sides, scenario, semantic):
    """Fused and split operations aside, what one side computes the other computes as well, whatever the layout."""
    found = {}
    for side in ("torch", "paddle"):
        trace, store = opened(sides, side, scenario)
        outputs = [
            (operation, store[trace.values[n].name]) for operation in trace.operations for n in operation.outputs
        ]
        found[side] = [(o, np.sort(a, axis=None)) for o, a in outputs if a.dtype.kind == "f"]
    everything = [array for _, array in found["paddle"]]
    wanted = [(operation, array) for operation, array in found["torch"] if operation.name in semantic]
    if scenario.startswith("pit"):  # Paddle adds the bias of a convolution in an operation of its own
        assert {operation.name for operation, _ in wanted} == set(semantic)
    for operation, array in wanted:
        scale = np.abs(array).max()
        assert any(a.size == array.size and np.abs(a - array).max() <= 1e-12 * scale for a in everything), operation


def test_the_values_are_those_of_the_moment(traced):
    """Every sum and product can be computed again from what was recorded, in-place operations and views included."""
    trace, store = traced("numbering")
    trace.check()
    arrays = [store[value.name] for value in trace.values]
    checked = 0
    for operation in trace.operations:
        if operation.name in ("add", "multiply"):
            one, other = (arrays[number] for number in operation.inputs)
            expected = one + other if operation.name == "add" else one * other
            assert np.array_equal(arrays[operation.outputs[0]], expected), operation
            checked += 1
    assert checked == 7
    first, second = (trace.operations[index] for index in (3, 4))
    assert first.inplace and first.code == "rest.add_(rest)"
    assert second.inputs == (first.outputs[1],) * 2, "what was written to through a view is the writer's second output"
    y = X + X
    y[1:] *= 2
    assert np.array_equal(arrays[second.inputs[0]], y)


def test_a_write_beside_a_view_is_none_of_its_business(traced):
    trace, _ = traced("numbering")
    products = [operation for operation in trace.operations if operation.code == "y[0] = first[0] * first[0]"]
    wrote = next(operation for operation in trace.operations if operation.code == "y.add_(y)")
    assert products[0].inputs == (wrote.outputs[1],), "`first` lies in what y.add_ wrote, not in what rest.add_ wrote"


def test_the_place_is_the_expression_of_the_user(traced, told):
    trace, _ = traced("lines")
    first = told["lines"]
    product, total = trace.operations
    assert (product.line, product.end_line, product.code) == (first + 3, first + 3, "+ v * 2")
    assert (total.line, total.end_line) == (first + 2, first + 3)
    assert {operation.file for operation in trace.operations} == {str(PROBE)}
    assert [frame.function for frame in total.stack[:2]] == ["lines.<locals>.inner", "lines.<locals>.<lambda>"]


def test_what_reaches_no_kernel_by_name_is_noted(traced):
    trace, store = traced("bypassing")
    trace.check()
    wanted = {
        "transpose",
        "matmul",
        "subtract",
        "divide",
        "multiply",
        "add",
        "power",
        "abs",
        "less",
        "equal",
        "greater",
    }
    wanted |= {"remainder", "floor_divide", "getitem", "setitem", "full", "arange"}
    wanted |= {"clone", "detach", "linear"}
    assert wanted <= set(names(trace))
    assert sum(operation.inplace for operation in trace.operations if operation.name == "setitem") == 2
    last = trace.operations[-1].outputs[0]
    assert store[trace.values[last].name].shape == (3, 3)


def test_a_tensor_from_nowhere_is_an_error(told, side):
    text, file = told["hole"]["text"], told["hole"]["file"]
    assert text.startswith(f"{side} trace: untraced producer: operation 0 (")
    assert f"at {file}:{source_line('_ = value - hidden')} reads a tensor of shape [3, 4]" in text


def test_an_entry_point_left_alone_is_found(told):
    (text,) = told["not_wrapped"]
    assert f":{source_line('_ = made / 7')} reads a tensor of shape" in text and "no traced operation" in text


def test_gradients_are_whole_and_stop_where_they_stop(traced):
    trace, store = traced("gradients")
    assert np.array_equal(store["op_grad/0"], 2 * 3 * X), "the sum over both readers"
    assert "op_grad/1" not in store and "op_grad/2" not in store
    assert names(trace)[1] == "detach" and trace.values[trace.operations[1].outputs[0]].gradient is False
    assert np.array_equal(store["input_grad/0"], 3 * store["op_grad/0"])


def test_a_second_backward_has_names_of_its_own(traced):
    _, store = traced("backward_twice")
    assert np.array_equal(store["op_grad/0"], np.ones_like(X))
    assert np.array_equal(store["op_grad/0#1"], np.ones_like(X))


def test_the_output_of_an_autograd_function_has_a_gradient(traced):
    trace, store = traced("late_gradient")
    trace.check()
    assert np.array_equal(store["op/0"], X * X) and np.array_equal(store["op_grad/0"], np.ones_like(X))


def test_modules_are_labelled_by_call(traced):
    trace, _ = traced("labels")
    assert [(operation.name, operation.module) for operation in trace.operations] == [
        ("linear", "fc"),
        ("linear", "fc#1"),
        ("add", "(model)"),
        ("multiply", "chosen.fails.deeper"),  # an exception left it; it is told from `chosen` when that ends
        ("subtract", "(model)"),
        ("multiply", ""),
    ]
    assert trace.values[0].name == "input/(model)/in/0"


def test_tensors_that_a_module_just_holds_are_known(traced):
    trace, store = traced("attributes")
    trace.check()
    assert store["attribute/plain"] == 2 and store["attribute/several.1"] == 4
    assert "attribute/several.0" not in store


@pytest.mark.parametrize("scenario", ["optimizer", "optimizer_again"])
def test_an_update_is_closed(traced, scenario):
    trace, store = traced(scenario)
    trace.check()
    assert {"gradient/weight", "gradient/bias", "parameter/weight"} <= set(store)
    assert store["gradient/weight"].shape == store["parameter/weight"].shape == (2, 4)


def test_what_is_computed_after_an_update_reads_the_new_parameters(traced):
    trace, _ = traced("optimizer")
    first, *_, last = [operation for operation in trace.operations if operation.name == "linear"]
    weight, bias = (trace.values[number] for number in last.inputs[1:])
    assert trace.values[first.inputs[1]].origin == "parameter"
    assert weight.origin == bias.origin == "operation" and trace.operations[weight.operation].inplace


def test_running_statistics_are_written(traced, told):
    trace, store = traced("running_statistics")
    trace.check()
    one, other = [operation for operation in trace.operations if operation.name == "batch_norm"]
    assert set(one.outputs[1:]) <= set(other.inputs), "the second call reads what the first has written"
    for number, name in zip(other.outputs[1:], ("running_mean", "running_var"), strict=True):
        assert store[trace.values[number].name].tolist() == told["running_statistics"][name]


def test_everything_is_put_back_when_the_block_fails(told):
    assert told["restored"]["changed"] >= 5
    assert told["restored"]["same"]


@pytest.mark.parametrize("form", ["plain", "causal", "boolean", "added", "scaled", "grouped"])
def test_fused_attention_is_taken_apart(sides, form):
    trace, store = opened(sides, "torch", f"attention_{form}")
    trace.check()
    assert sides["torch"][1]["attention"][form] < 1e-13, "outputs and gradients of the fused kernel, to rounding"
    assert names(trace).count("matmul") == 2 and "softmax" in names(trace)
    (softmax,) = [operation for operation in trace.operations if operation.name == "softmax"]
    weights = store[trace.values[softmax.outputs[0]].name]
    sums = weights.sum(-1)
    assert np.all((np.abs(sums - 1) < 1e-12) | np.isnan(sums))


def test_without_gradients_only_values(traced):
    trace, store = traced("without_gradient")
    assert names(trace) == ["multiply"] and list(store) == ["input/0", "op/0"]


@pytest.mark.parametrize("text", [None, "", "{}\n", "nonsense\n", '{"trace": 2, "side": "torch"}\n'])
def test_a_bad_file_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "step.trace.jsonl").write_text(text)
    with pytest.raises(UsageError, match=r"step\.trace\.jsonl: (cannot read the trace|not a value trace)"):
        read(tmp_path, "step")


def test_a_file_without_its_values_is_refused(sides, tmp_path):
    lines = (sides["torch"][0] / "lines.trace.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "lines.trace.jsonl").write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(UsageError, match="values are missing"):
        read(tmp_path, "lines")
