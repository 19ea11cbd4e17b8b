"""`paddle_impl.weights`: what only Paddle's files and layers can show. What both sides share is in tests/models."""

import json

import pytest

CODE = """
import json, os, pickle, sys
import numpy as np, paddle
from paddle_impl import pit, weights

os.chdir(sys.argv[1])
tiny = dict(image_size=32, base_dims=(4, 4, 4), depth=(1, 1, 1), num_classes=8)
paddle.seed(0)
model = pit.pit_ti(**tiny)
state = model.state_dict()
expected = weights.reference_state(model)
facts = {}


class Runs:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def attempt(name):
    notes = []
    try:
        read = weights.read_weights(f"{name}.pdparams", model, notes)
        same = read.keys() == expected.keys() and all(np.array_equal(read[k], expected[k]) for k in expected)
        weights.load_pretrained(pit.pit_ti(**tiny), "pit_ti", f"{name}.pdparams")
        facts[name] = [same, notes]
    except weights.WeightsError as error:
        facts[name] = str(error)


for protocol in (2, 3, 4):
    paddle.save(state, f"protocol{protocol}.pdparams", protocol=protocol)
    attempt(f"protocol{protocol}")
contents = {
    "model": {"model": state, "epoch": 3},
    "ddp": {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "halves": {name: value.astype("bfloat16") for name, value in state.items()},
    "list": [1, 2],
    "numbers": {"epoch": 3},
}
for name, content in contents.items():
    paddle.save(content, f"{name}.pdparams")
    attempt(name)
pickles = {
    "objects": pickle.dumps({"a": Runs()}, 4),
    "objects2": pickle.dumps({"a": Runs()}, 2),
    "eval": b"cbuiltins\\neval\\n(S'1'\\ntR.",
    "dense": b"\\x80\\x04\\x8c\\x08builtins\\x8c\\x04eval\\x93\\x8c\\x04data}\\x86R.",  # paddle.save of a DenseTensor
    "huge": b"\\x80\\x04cnumpy._core.multiarray\\n_reconstruct\\n"
    b"cnumpy\\nndarray\\n\\x8a\\x05\\0\\0\\0\\0\\x10\\x85C\\x01b\\x87R.",
    "codec": b"\\x80\\x04c_codecs\\nencode\\n\\x8c\\x01a\\x8c\\x05zlib_\\x86R.",
    "sliced": pickle.dumps({"UnpackBigParamInfor@@": {}}),
}
for name, content in pickles.items():
    with open(f"{name}.pdparams", "wb") as file:
        file.write(content)
    attempt(name)
facts["executed"] = os.path.exists("executed")

# a warning of set_state_dict, and names it gives back, are errors
import warnings
load = model.set_state_dict


def warns(state):
    warnings.warn("Skip loading for head.weight.")
    return load(state)


for name, faulty in {"warns": warns, "skips": lambda state: (["head.weight"], [])}.items():
    model.set_state_dict = faulty
    try:
        weights.load_reference_state(model, expected)
    except weights.WeightsError as error:
        facts[name] = str(error)
model.set_state_dict = lambda state: load({key: value * 2 for key, value in state.items()})
try:
    weights.load_reference_state(model, expected)
except weights.WeightsError as error:
    facts["doubles"] = str(error)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(run_python, tmp_path_factory):
    return json.loads(run_python(CODE, tmp_path_factory.mktemp("pdparams")).stdout.splitlines()[-1])


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_every_protocol_of_paddle_save(facts, protocol):
    assert facts[f"protocol{protocol}"] == [True, []]


def test_nested_checkpoints_are_read_and_it_is_said(facts):
    assert facts["model"] == [True, ["taken from 'model' of the checkpoint; left out: epoch"]]
    assert facts["ddp"][0]
    assert facts["ddp"][1][1] == "prefix 'module.' of data-parallel training dropped"


def test_halves_are_widened_and_it_is_said(facts):
    same, notes = facts["halves"]
    assert not same
    assert notes == ["52 bfloat16 tensors widened to float32 (exact)"]


def test_what_is_no_state_dict_is_refused(facts):
    assert facts["list"] == "list.pdparams: holds no state dict, but a list"
    assert facts["numbers"] == "numbers.pdparams: not all are tensors: epoch; the first is a int"
    assert "save it again with paddle.save(..., protocol=4)" in facts["sliced"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("objects", "it asks for posix.mkdir, which is no part of weights; nothing was run"),
        ("objects2", "it asks for posix.mkdir, which is no part of weights; nothing was run"),
        ("eval", "it asks for builtins.eval, which is no part of weights; nothing was run"),
        ("dense", "it asks for builtins.eval, which is no part of weights; nothing was run"),
        ("huge", "an array is not written as numpy writes it"),
        ("codec", "bytes are not written as 'zlib_'"),
    ],
)
def test_nothing_in_a_file_is_executed(facts, name, reason):
    assert facts[name] == f"{name}.pdparams: truncated, corrupt or more than weights: {reason}"
    assert not facts["executed"]


def test_what_the_framework_only_says_is_an_error(facts):
    assert facts["warns"] == "the framework warned while loading: Skip loading for head.weight."
    assert facts["skips"] == "the framework did not load all: missing head.weight, unexpected none"


def test_what_is_loaded_is_read_back(facts):
    # The LayerNorms' biases are zero at first, and twice zero is zero.
    assert facts["doubles"] == (
        "45 tensors read back are not what was given: pos_embed, cls_token, patch_embed.conv.weight, and 42 more"
    )
