"""`weights.py` of both sides: the same answers to the same questions, each side in a process of its own."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.models.weights_probe import LINEARS

SIDES = {"torch_ref": ".pth", "paddle_impl": ".pdparams"}
START = "import runpy; runpy.run_module('tests.models.weights_probe', run_name='__main__')"


@pytest.fixture(scope="module", params=SIDES)
def side(request):
    return request.param


@pytest.fixture(scope="module")
def facts(side, run_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp(side)
    env = {"HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_HUB_OFFLINE": "1"}
    run_python(START, side, folder, env=env)
    return json.loads((folder / "facts.json").read_text())


def test_what_is_loaded_is_the_source(facts):
    assert facts["hashes"]
    assert facts["read back"] == []


def test_every_linear_layer_multiplies_by_the_transposed_weight(facts):
    """By its product: a square weight that was not transposed has the right shape, and reads back as it was given."""
    assert facts["wrong products"] == []


def test_the_type_of_the_owner_decides_what_is_transposed(side, facts):
    assert sorted(facts["transposed"]) == (sorted(LINEARS) if side == "paddle_impl" else [])


def test_values_widen_exactly_and_are_rounded_only_on_request(side, facts):
    assert facts["widened"] == []
    wide = "torch.float32" if side == "torch_ref" else "paddle.float32"
    assert facts["lossy"] == f"norm.bias: values of type float64 do not go into {wide} exactly; cast=True rounds them"
    assert facts["cast"] == []
    assert "bfloat16 exactly; cast=True rounds them" in facts["lossy half"]
    assert 0 < facts["half"] <= 2**-8  # half an ulp of bfloat16's 8 bits


def test_what_does_not_fit_is_named_and_changes_nothing(facts):
    assert facts["missing"] == (
        "4 tensors are missing (pools.0.conv.weight, pools.0.conv.bias, pools.0.fc.weight, and 1 more)"
    )
    assert facts["extra"] == "1 are unknown to the model (head.scale)"
    assert facts["turned"] == (
        "1 have another shape (transformers.0.blocks.0.mlp.fc1.weight is (8, 32) where the model has (32, 8))"
    )
    assert re.match(r"\d+ tensors are missing \(pos_embed, cls_token, patch_embed.conv.weight, and", facts["nothing"])
    assert facts["changed by failures"] == []


def test_files_give_back_what_was_written(side, facts):
    for name in (f"tiny{SIDES[side]}", "tiny.safetensors", "timm.safetensors", f"timm{SIDES[side]}", "strided"):
        assert facts[f"file {name}"] == [], name
    assert "tensors are missing" in facts["write another"]
    assert "none/x.safetensors: could not be written" in facts["write elsewhere"]
    assert f"none/x{SIDES[side]}: could not be written" in facts["write elsewhere, natively"]
    for suffix in (".safetensors", SIDES[side]):
        assert f"taken{suffix}: could not be written" in facts[f"write taken{suffix}"]
    assert facts["left over"] == []


def test_bad_files_give_one_line_that_names_them(side, facts):
    assert len(facts["bad files"]) == 18
    for case, message in facts["bad files"].items():
        assert message, f"{case}: was taken for good"
        assert re.fullmatch(r".*/bad\.\w+: (truncated, corrupt|holds no tensor).*", message), case
    assert facts["none.safetensors"].endswith(
        f"none.safetensors: there is no such file; give a .safetensors or {SIDES[side]} file with the weights"
    )
    assert "there is no such file" in facts["folder.safetensors"]
    foreign = SIDES["paddle_impl" if side == "torch_ref" else "torch_ref"]
    assert re.search(r"own format; .*: align convert .* OUT.safetensors", facts[f"x{foreign}"])
    assert f"unknown kind of file '.bin'; .safetensors and {SIDES[side]} are read here" in facts["x.bin"]


def test_half_precision_files(facts):
    wrong, notes = facts["bf16"]
    assert wrong == []
    assert notes == ["54 bfloat16 tensors widened to float32 (exact)"]
    assert facts["f16"] == [[], []]


def test_pretrained_takes_a_path(facts):
    assert facts["from a path"] == facts["from text"] == []
    assert "not for this pit_ti: 2 are unknown to the model (head_dist.weight, head_dist.bias)" in facts["of another"]
    assert "no variant of PiT has a first width of 8 and 2 tokens" in facts["of another"]
    assert "4 have another shape (head.weight is (8, 8) where the model has (5, 8)" in facts["other classes"]


def test_pretrained_takes_the_hubs_cache(facts):
    assert facts["hub"] == []


HUB = (
    r"pretrained weights of pit_ti: model.safetensors of timm/pit_ti_224.in1k is not in the local cache and could not "
    r'be downloaded \(.+\). Fetch it where there is a network and give the file, pit_ti\(pretrained="FILE"\), or point '
    r"HF_HOME at a cache folder that holds it"
)


def test_offline_is_one_clear_error_and_nobody_is_asked(facts):
    assert re.fullmatch(HUB, facts["hub without the file"])
    assert "OfflineModeIsEnabled" in facts["hub without the file"]
    assert facts["connections"] == []


@pytest.fixture
def busy_hub():
    """The address of a server on this machine that always says it is busy; and the paths that it was asked for."""
    asked = []

    class Busy(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_error(503)

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_a_hub_that_cannot_answer_is_the_same_error_and_is_asked_once(side, busy_hub, run_python, tmp_path):
    """The hub's own download would ask seven times (huggingface_hub 2.4.0), and wait longer after each."""
    code = """
import importlib, sys
pit = importlib.import_module(sys.argv[1] + ".pit")
weights = importlib.import_module(sys.argv[1] + ".weights")
try:
    pit.pit_ti(image_size=32, base_dims=(4, 4, 4), depth=(1, 1, 1), pretrained=True)
except weights.WeightsError as error:
    print(error)
"""
    address, asked = busy_hub
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address}
    message = run_python(code, side, env=env).stdout.splitlines()[-1]
    assert re.fullmatch(HUB, message)
    assert [path for path in asked if path.endswith("/model.safetensors")] == [
        "/timm/pit_ti_224.in1k/resolve/main/model.safetensors"
    ]


def test_variants_are_told_by_names_and_shapes(facts):
    assert len(facts["variants"]) == 8
    for variant, (found, arguments) in facts["variants"].items():
        assert found == variant
        assert arguments == {"image_size": [224, 224], "in_chans": 4, "num_classes": 7}
    assert facts["no variant"].startswith("no variant of PiT has a first width of 5")
    assert facts["no pit"].startswith("not the weights of a PiT")


def test_names(facts):
    assert facts["names"] == [
        "transformers.1.pool.conv.weight",
        "transformers.2.pool.fc.bias",
        "transformers.0.blocks.1.attn.qkv.weight",
        "head.bias",
    ]
    assert facts["names back"]
    assert "old timm" in facts["old timm"]


def test_any_model_with_batch_norm(facts):
    assert facts["batch norm"] == []
    assert facts["counter of nothing"] == "1 are unknown to the model (0.num_batches_tracked)"


def test_neither_the_other_framework_nor_the_harness_is_imported(facts):
    assert facts["imported"] == []
