"""The numeric families on real arrays: each change is found and named, and random noise never has a cause."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from align.diagnose import Evidence, diagnose
from align.diagnose.families.rounded import rounded
from align.diagnose.modules import ModuleEvidence

RANDOM = np.random.default_rng(20210330)
REFERENCE = RANDOM.normal(size=(4, 12, 5, 6))
BIAS, RESIDUAL, OTHER = RANDOM.normal(size=12), RANDOM.normal(size=(4, 12, 5, 6)), RANDOM.normal(size=(4, 12, 5, 6))
VALUES = {"parameter conv.bias": BIAS, "the input of block": RESIDUAL, "add at pit.py:7": OTHER}
NUMBERS = {"head_dim": 8.0, "batch size": 6.0, "tau": 3.0}


def cause(port, reference=REFERENCE, **more):
    return diagnose([[Evidence("forward", "x", port, reference, VALUES, NUMBERS, **more)]])[0]


def channels(order):
    return REFERENCE[:, order]


CHANGES = {
    "scale": REFERENCE * 8**-0.5,
    "added-constant": REFERENCE + 0.25,
    "scale-and-shift": REFERENCE * 3 + 1,
    "lower-precision": rounded(REFERENCE, "bfloat16"),
    "missing-bias": REFERENCE - BIAS[:, None, None],
    "extra-bias": REFERENCE + BIAS[:, None, None],
    "missing-residual": REFERENCE - RESIDUAL,
    "extra-term": REFERENCE + OTHER,
    "wrong-operand": REFERENCE - RESIDUAL + OTHER,
    "missing-factor": REFERENCE / OTHER,
    "extra-factor": REFERENCE * OTHER,
    "permuted-channels": channels(RANDOM.permutation(12)),
    "permuted-rows": np.roll(REFERENCE, 1, 2),
    "permuted-columns": REFERENCE[..., ::-1],
    "permuted-batch": REFERENCE[[1, 0, 2, 3]],
    "swapped-height-width": REFERENCE.swapaxes(2, 3).reshape(REFERENCE.shape),
    "transposed": REFERENCE.transpose(0, 2, 3, 1),
    "rounded-constant": REFERENCE * (0.1666667 * 6),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named_and_explains_everything(name):
    found = cause(CHANGES[name])
    assert found is not None
    assert found.id == name
    assert found.explained == pytest.approx(1, abs=1e-6)
    assert found.text.endswith("explains 100.0 %")


def test_what_is_worked_out_in_a_lower_type_is_known_by_its_numbers():
    """Its rounding errors are its own: no rounding of the reference makes the port's value."""
    exponents = np.exp(REFERENCE)
    low = exponents.astype(np.float32)
    port = (low / low.sum(-1, keepdims=True)).astype(np.float64)
    found = cause(port, exponents / exponents.sum(-1, keepdims=True))
    assert (found.id, found.explained) == ("lower-precision", None)
    assert found.text.endswith(
        "one of float32, and off by no more than that type's rounding (read from both recordings)"
    )
    further = (port * 1.001).astype(np.float32).astype(np.float64)
    assert cause(further, exponents / exponents.sum(-1, keepdims=True)) is None


def test_a_stretch_of_a_bias_that_is_left_out_is_told():
    part = np.where(np.arange(12) < 4, BIAS, 0.0)[:, None, None]
    found = cause(REFERENCE - part)
    assert (found.id, found.text) == (
        "missing-bias",
        "of parameter conv.bias the elements 0 to 3 are not added in the port: explains 100.0 %",
    )
    assert cause(REFERENCE - 2 * part) is None


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0])
def test_noise_has_no_cause(size):
    """Whatever its size, alone or on top of a change that would be one."""
    noise = size * RANDOM.normal(size=REFERENCE.shape)
    assert cause(REFERENCE + noise) is None
    for changed in CHANGES.values():
        if changed.shape == REFERENCE.shape:
            assert cause(changed + noise) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([(7,), (3, 5), (2, 3, 4), (2, 2, 3, 3)]))
@settings(max_examples=60, deadline=None)
def test_unrelated_tensors_have_no_cause(seed, shape):
    port, reference, value = (np.random.default_rng([seed, k]).normal(size=shape) for k in range(3))
    evidence = Evidence("forward", "x", port, reference, {"value": value, "bias": value[..., 0].reshape(-1)}, NUMBERS)
    assert diagnose([[evidence]]) == [None]


@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_order_of_axes_is_undone(order, seed):
    reference = np.random.default_rng(seed).normal(size=(2, 3, 4, 5))
    port = reference.transpose(order)
    assume(list(order) != sorted(order))
    for shape in (port.shape, reference.shape):
        found = cause(port.reshape(shape), reference)
        assert found is not None
        assert found.explained == 1


@given(st.floats(-50, 50), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_any_factor_is_found(factor, exponent):
    factor *= 10**exponent
    assume(abs(factor) > 1e-3 and abs(factor - 1) > 1e-3)
    found = cause(REFERENCE * factor)
    assert found is not None
    assert found.id == "scale"
    told = re.match(r"the port's value is (\S+) times the reference's", found.text)
    assert float(told[1]) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (8**0.5, "sqrt(8), 8 is head_dim"),
        (8**-0.5, "1/sqrt(8)"),
        (6, "6 is batch size"),
        (1 / 6, "1/6"),
        (9, "3 squared, 3 is tau"),
        (2, "2 times"),
    ],
)
def test_a_factor_is_recognised_by_what_is_at_hand(factor, told):
    assert told in cause(REFERENCE * factor).text


@pytest.mark.parametrize("reference", [np.float64(3.0), np.full((4, 4), 2.0), np.arange(4.0)])
def test_too_little_to_tell_has_no_cause(reference):
    """One number, one value everywhere, or fewer elements than a claim would need: any factor would fit."""
    reference = np.asarray(reference)
    assert cause(reference * 1.7, reference) is None


def test_missing_nan_and_integer_tensors_have_no_cause():
    assert cause(None) is None
    assert cause(np.where(REFERENCE > 1, np.nan, REFERENCE)) is None
    assert cause(np.ones((3, 4), np.int64), np.zeros((3, 4), np.int64)) is None


def test_equal_tensors_have_no_cause():
    assert cause(REFERENCE.copy()) is None


@pytest.mark.parametrize(("factor", "name"), [(2, "doubled-gradient"), (0.5, "scaled-gradient")])
def test_gradients_have_names_of_their_own(factor, name):
    assert cause(REFERENCE * factor, gradient=True).id == name


def made_of(port, reference, *inputs, **more):
    read = [(f"value {k}", value) for k, value in enumerate(inputs)]
    return diagnose([[ModuleEvidence("forward", "", port, reference, inputs=read, **more)]])[0]


X = RANDOM.normal(size=(3, 2, 9, 9))


def gelu(x):
    from math import erf

    return 0.5 * x * (1 + np.vectorize(erf)(x / 2**0.5))


def softmax(x, axis):
    exponents = np.exp(x - x.max(axis, keepdims=True))
    return exponents / exponents.sum(axis, keepdims=True)


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def hardsigmoid(x, slope):
    return np.clip(slope * x + 0.5, 0, 1)


FUNCTIONS = {
    "approximate-gelu": (tanh_gelu(X), gelu(X), "gelu with tanh approximation in the port, exact in the reference"),
    "wrong-axis": (softmax(X, 2), softmax(X, 3), "softmax with axis -2 in the port, axis -1 in the reference"),
    "wrong-activation": (np.maximum(X, 0), gelu(X), "relu of value 0 in the port, gelu, exact in the reference"),
    "missing-activation": (X, np.tanh(X), "value 0 is left as it is, where the reference takes tanh of it"),
    "negative-slope": (np.where(X > 0, X, 0.3 * X), np.where(X > 0, X, 0.01 * X), "slope 0.3 in the port"),
    "rounded-constant": (hardsigmoid(X, 0.1666667), hardsigmoid(X, 1 / 6), "slope 0.1666667 in the port"),
    "wrong-reduction": (X.max(2), X.mean(2), "max, axis -2 of value 0 in the port, mean, axis -2"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_function_of_the_same_input(name):
    port, reference, told = FUNCTIONS[name]
    found = made_of(port, reference, X)
    assert found is not None
    assert found.id == name
    assert told in found.text


def layer_norm(x, weight, bias, epsilon):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * weight + bias


def test_an_epsilon_is_solved_for():
    x, weight, bias = X * 0.01, RANDOM.normal(size=9), RANDOM.normal(size=9)
    port, reference = (layer_norm(x, weight, bias, epsilon) for epsilon in np.float64(np.float32([1e-5, 1e-6])))
    found = made_of(port, reference, x, weight, bias)
    assert found.id == "layer-norm-epsilon"
    assert "epsilon 1e-05 in the port, 1e-06 in the reference" in found.text


def test_weight_and_bias_left_out():
    weight, bias = RANDOM.normal(size=9), RANDOM.normal(size=9)
    port, reference = (layer_norm(X, *affine, 1e-6) for affine in ((1.0, 0.0), (weight, bias)))
    found = made_of(port, reference, X, values={"parameter norm.weight": weight, "parameter norm.bias": bias})
    assert found.id == "missing-affine"


def test_a_function_that_is_not_known_is_not_claimed():
    assert made_of(np.cbrt(X) + X**2, gelu(X), X) is None
    assert made_of(gelu(X), np.cbrt(X) + X**2, X) is None


A, B, C = (RANDOM.normal(size=(2, 6, 6)) for _ in range(3))
W, BIAS6 = RANDOM.normal(size=(6, 6)), RANDOM.normal(size=6)


@pytest.mark.parametrize(
    ("port", "reference", "inputs", "name"),
    [
        (A @ W + BIAS6, A @ W.T + BIAS6, (A, W, BIAS6), "transposed"),
        (np.concatenate((A, B), 1), np.concatenate((B, A), 1), (A, B), "permuted"),
        (A - B, A + B, (A, B), "wrong-operation"),
        (A @ B, A @ C, (A, B), "wrong-operand"),
        (A @ B, A @ (B * 0.25), (A, B), "scale"),
    ],
)
def test_another_operand(port, reference, inputs, name):
    found = made_of(port, reference, *inputs, values={"c": C, "quarter": B * 0.25})
    assert found is not None
    assert found.id.startswith(name)


def test_operands_that_are_not_at_hand_are_not_claimed():
    assert made_of(A @ B, A @ C, A, B) is None


def test_another_slice():
    value = RANDOM.normal(size=(4, 9, 16))
    found = diagnose([[Evidence("forward", "x", value[:, 1], value[:, 0], {"the output of norm": value})]])[0]
    assert found.id == "wrong-slice"
    assert "the port takes 1 of axis 1, the reference 0 of axis 1" in found.text
