"""Settings of layers under one name: of every pair of layers made alike nothing differs, and what is changed does."""

import json

import pytest

from align.diagnose.canonical import differences, kind

# (layer in torch.nn, arguments; layer in paddle.nn, arguments; word that must differ, or None)
PAIRS = [
    ("LayerNorm(8, eps=1e-6)", "LayerNorm(8, epsilon=1e-6)", None),
    ("LayerNorm(8, eps=1e-6)", "LayerNorm(8)", "epsilon"),
    ("BatchNorm2d(4)", "BatchNorm2D(4)", None),
    ("BatchNorm2d(4)", "BatchNorm2D(4, momentum=0.1)", "momentum"),
    ("GroupNorm(2, 4)", "GroupNorm(2, 4)", None),
    ("GroupNorm(2, 4)", "GroupNorm(4, 4)", "groups"),
    ("Conv2d(4, 8, 3, 2, 1)", "Conv2D(4, 8, 3, 2, 1)", None),
    ("Conv2d(4, 8, 3, 2, 1)", "Conv2D(4, 8, 3, 1, 1)", "stride"),
    ("Conv2d(4, 8, 3, 2, 1)", "Conv2D(4, 8, 3, 2, 0)", "padding"),
    ("Conv2d(4, 8, 3, 2, 1)", "Conv2D(4, 8, 3, 2, [0, 2, 0, 2])", "padding"),
    ("Conv2d(4, 8, 3, dilation=2)", "Conv2D(4, 8, 3)", "dilation"),
    ("Conv2d(4, 8, 3, groups=2)", "Conv2D(4, 8, 3, groups=2)", None),
    ("Conv2d(4, 8, 3, padding=1)", "Conv2D(4, 8, 3, padding=1, padding_mode='reflect')", "padding mode"),
    ("Conv2d(4, 8, 3, padding=1, padding_mode='reflect')", "Conv2D(4, 8, 3, padding=1, padding_mode='reflect')", None),
    ("Conv1d(4, 8, 3, padding=1)", "Conv1D(4, 8, 3, padding=1)", None),
    ("GELU()", "GELU()", None),
    ("GELU(approximate='tanh')", "GELU(True)", None),
    ("GELU()", "GELU(True)", "approximate"),
    ("LeakyReLU(0.2)", "LeakyReLU(0.2)", None),
    ("LeakyReLU()", "LeakyReLU(0.2)", "negative slope"),
    ("AvgPool2d(3, 2, 1)", "AvgPool2D(3, 2, 1, exclusive=False)", None),
    ("AvgPool2d(3, 2, 1)", "AvgPool2D(3, 2, 1)", "exclusive"),
    ("AvgPool2d(2)", "AvgPool2D(2, exclusive=False)", None),
    ("MaxPool2d(2, ceil_mode=True)", "MaxPool2D(2)", "ceil mode"),
    ("MaxPool2d(3, 2, 1)", "MaxPool2D(3, 2, 1)", None),
    ("Dropout(0.1)", "Dropout(0.1)", None),
    ("Dropout(0.1)", "Dropout(0.1, mode='downscale_in_infer')", "mode"),
    ("Softmax(dim=-1)", "Softmax(axis=-1)", None),
    ("Softmax(dim=-1)", "Softmax(axis=1)", "axis"),
    ("Upsample(scale_factor=2, mode='bilinear', align_corners=True)",
     "Upsample(scale_factor=2, mode='bilinear')", "align_corners"),
    ("Upsample(scale_factor=2, mode='bilinear', align_corners=False)",
     "Upsample(scale_factor=2, mode='bilinear')", None),
    ("Linear(3, 4)", "Linear(3, 4)", None),
    ("ReLU()", "GELU()", None),  # another layer is no setting
]  # fmt: skip

CODE = """
import json, sys, {framework}.nn as nn
from align.record.settings import settings
print(json.dumps([settings({{"m": eval("nn." + text)}})["m"] for text in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def held(run_python):
    """What the layers of both frameworks hold, each read in a process of its own framework."""
    texts = {"torch": [pair[0] for pair in PAIRS], "paddle": [pair[1] for pair in PAIRS]}
    outputs = {side: run_python(CODE.format(framework=side), json.dumps(texts[side])) for side in texts}
    return {side: json.loads(output.stdout.splitlines()[-1]) for side, output in outputs.items()}


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=[f"{p[1]} for {p[0]}" for p in PAIRS])
def test_what_differs_is_named(held, number):
    word = PAIRS[number][2]
    found = [difference.word for difference in differences(held["paddle"][number], held["torch"][number])]
    assert found == ([] if word is None else [word])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("LayerNorm", "layer-norm"), ("Conv2D", "conv"), ("GELU", "gelu"), ("LeakyReLU", "leaky-relu")],
)
def test_kinds_of_layers(name, expected):
    assert kind(name) == expected
