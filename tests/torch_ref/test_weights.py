"""`torch_ref.weights`: what only PyTorch's files and timm can show. What both sides share is in tests/models."""

import json

import pytest

TIMM = """
import json, timm, torch
from timm.models.pit import checkpoint_filter_fn
from torch_ref import pit, weights

facts = {}
with torch.device("meta"):
    for variant in pit.VARIANTS:
        ours = getattr(pit, variant)()
        theirs = timm.create_model(f"{variant}_224")
        state = {weights.official_to_timm(name): value.shape for name, value in ours.state_dict().items()}
        expected = {name: value.shape for name, value in theirs.state_dict().items()}
        renamed = checkpoint_filter_fn(ours.state_dict(), theirs)
        cfg = timm.models.get_pretrained_cfg(f"{variant}_224.in1k")
        facts[variant] = {
            "state": state == expected,
            "filter": list(renamed) == list(state),
            "back": [weights.timm_to_official(name) for name in state] == list(ours.state_dict()),
            "hub": [cfg.hf_hub_id, weights.HUB_REPOSITORY.format(variant=variant)],
        }
print(json.dumps(facts))
"""


def test_names_and_repositories_are_timms(run_python):
    facts = json.loads(run_python(TIMM).stdout.splitlines()[-1])
    assert len(facts) == 8
    for variant, found in facts.items():
        assert found == {"state": True, "filter": True, "back": True, "hub": [f"timm/{variant}_224.in1k"] * 2}


PTH = """
import json, os, sys
import numpy as np, torch
from torch_ref import pit, weights

os.chdir(sys.argv[1])
tiny = dict(image_size=32, base_dims=(4, 4, 4), depth=(1, 1, 1), num_classes=8)
torch.manual_seed(0)
state = pit.pit_ti(**tiny).state_dict()


class Runs:
    def __reduce__(self):
        return os.mkdir, ("executed",)


contents = {
    "model": {"model": state, "optimizer": {}, "epoch": 3},
    "state_dict": {"state_dict": state, "arch": "pit_ti"},
    "ddp": {"model": {f"module.{name}": value for name, value in state.items()}},
    "list": [1, 2],
    "numbers": state | {"epoch": 3},
    "objects": {"model": Runs()},
    "halves": {name: value.bfloat16() for name, value in state.items()},
    "sparse": state | {"head.weight": state["head.weight"].to_sparse()},
}
facts = {}
for name, content in contents.items():
    torch.save(content, f"{name}.pth")
    notes = []
    try:
        read = weights.read_weights(f"{name}.pth", notes=notes)
        same = read.keys() == state.keys() and all(np.array_equal(read[k], state[k].numpy()) for k in state)
        weights.load_pretrained(pit.pit_ti(**tiny), "pit_ti", f"{name}.pth")
        facts[name] = [same, notes]
    except weights.WeightsError as error:
        facts[name] = str(error)
torch.save(state, "legacy.pth", _use_new_zipfile_serialization=False)
facts["legacy"] = len(weights.read_weights("legacy.pth"))
facts["executed"] = os.path.exists("executed")
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(run_python, tmp_path_factory):
    return json.loads(run_python(PTH, tmp_path_factory.mktemp("pth")).stdout.splitlines()[-1])


def test_nested_checkpoints_are_read_and_it_is_said(facts):
    assert facts["model"] == [True, ["taken from 'model' of the checkpoint; left out: epoch, optimizer"]]
    assert facts["state_dict"] == [True, ["taken from 'state_dict' of the checkpoint; left out: arch"]]
    assert facts["ddp"][0]
    assert facts["ddp"][1][1] == "prefix 'module.' of data-parallel training dropped"
    assert facts["legacy"] == 52


def test_halves_are_widened_and_it_is_said(facts):
    same, notes = facts["halves"]
    assert not same
    assert notes == ["52 bfloat16 tensors widened to float32 (exact)"]


def test_what_is_no_state_dict_is_refused(facts):
    assert facts["list"] == "list.pth: holds no state dict, but a list"
    assert facts["numbers"] == "numbers.pth: not all are tensors: epoch; the first is a int"
    assert facts["sparse"].startswith("sparse.pth: not all are tensors: head.weight")


def test_nothing_in_a_file_is_executed(facts):
    assert facts["objects"].startswith("objects.pth: truncated, corrupt or more than weights: Weights only load failed")
    assert not facts["executed"]
