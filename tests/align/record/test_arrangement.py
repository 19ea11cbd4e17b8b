"""Masks that lie where the reference's values do, whatever order a port keeps them in."""

import json
from pathlib import Path

import numpy as np
import pytest

from align.record.arrangement import Slices, arrangement, slices

MODELS = Path(__file__).parents[2] / "models"


def found(port, reference, shape=None):
    ours, theirs = slices(port, shape or port.shape), slices(reference, shape or reference.shape)
    return arrangement(ours, Slices.from_json(json.loads(json.dumps(theirs.as_json()))))


@pytest.fixture
def values():
    return np.random.default_rng(3).standard_normal((3, 2, 17, 17)).astype(np.float32)


def test_tokens_in_another_order(values):
    order = np.random.default_rng(4).permutation(17)
    mask = np.arange(values.size).reshape(values.shape)
    rounded = values.astype(np.float64) + 1e-7 * np.random.default_rng(5).standard_normal(values.shape)
    laid = found(rounded[:, :, order][..., order], values)
    assert np.array_equal(laid.of(mask), mask[:, :, order][..., order])


def test_axes_in_another_order(values):
    mask = np.arange(values.size).reshape(values.shape)
    laid = found(values.transpose(1, 0, 2, 3), values)
    assert np.array_equal(laid.of(mask), mask.transpose(1, 0, 2, 3))


def test_a_mask_over_samples_alone(values):
    order = np.array([2, 0, 1])
    laid = found(values[order], values, (3, 1, 1, 1))
    assert laid.of(np.arange(3).reshape(3, 1, 1, 1)).ravel().tolist() == order.tolist()


def test_softmax_rows_whose_means_are_all_alike():
    scores = np.random.default_rng(6).standard_normal((2, 4, 9, 9)).astype(np.float32)
    values = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    order = np.roll(np.arange(9), 1)
    laid = found(values[:, :, order][..., order], values)
    mask = np.arange(values.size).reshape(values.shape)
    assert np.array_equal(laid.of(mask), mask[:, :, order][..., order])


def test_what_lies_as_the_reference_does_or_is_another_is_not_arranged(values):
    assert found(values, values) is None
    assert found(values + 1, values) is None
    assert found(np.ones((2, 5)), np.ones((2, 5))) is None
    assert found(values[:, :, :5], values) is None
    twice = values[:, :, np.zeros(17, int)]
    assert found(twice, values) is None


def test_what_a_mask_does_not_fit_is_not_described(values):
    assert slices(values, (3, 2, 17)) is None
    assert slices(values, (3, 2, 1, 5)) is None
    assert slices(np.full((2, 3), np.nan), (2, 3)) is None
    assert slices(np.zeros((0, 3)), (0, 3)) is None
    assert slices(np.float64(1.0), ()) is None


def verdict(checked, port):
    models = MODELS / "rearranged_torch.py:Mixer", MODELS / f"rearranged_paddle.py:{port}"
    return checked(*models, "--input", "4,12,16")


def test_a_port_with_its_tokens_before_its_batch_and_its_class_token_last_is_aligned(checked):
    result = verdict(checked, "Mixer")
    assert result.verdict == "aligned", [row for row in result.rows if row.bad]
    named = {(row.step, row.name): row.verdict for row in result.rows}
    assert named["forward", "training"] == named["bp_align", "grad/hidden.weight"] == "aligned"
    assert named["bp_align", "draws/training"] == "aligned"


def test_another_rate_is_seen_in_it(checked):
    result = verdict(checked, "AnotherRate")
    assert result.verdict == "misaligned"
    wrong = {row.name for row in result.rows if row.verdict == "misaligned"}
    assert {"training", "draw/(model)/0/mask"} <= wrong
