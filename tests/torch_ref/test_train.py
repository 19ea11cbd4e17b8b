"""The reference's training is timm's: the average, in DeiT's formula. Its batches depend on their place alone."""

import json

import pytest
from PIL import Image

PROBE = """
import json, random, sys
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEma, ModelEmaV3

from tests.models.teacher_torch import small
from torch_ref.augment import train_transform
from torch_ref.ema import build_ema
from torch_ref.loader import EpochBatches, load_batches, seed_generators

foreign = [name for name in sys.modules if name.split(".")[0] in ("paddle", "paddle_impl", "reprod_log")]
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
network = small(3)
averages = {"ours": build_ema(network, 0.99996), "v3": ModelEmaV3(network, 0.99996), "deit": ModelEma(network, 0.99996)}
for _ in range(5):
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(torch.randn_like(tensor))
    network(torch.randn(8, 3, 9, 9))  # moves batch norm's statistics
    for average in averages.values():
        average.update(network)
states = {name: (a.ema if name == "deit" else a.module).state_dict() for name, a in averages.items()}
floating = [name for name, tensor in network.state_dict().items() if tensor.is_floating_point()]

torch.set_default_dtype(torch.float32)
images = [(Path(path), index) for index, path in enumerate(sys.argv[1:])]
dataset = EpochBatches(images, [[0, 1], [1, 1]], train_transform(16), key=(3, 1))
made = {}
for workers in (0, 2):
    random.seed(workers), np.random.seed(workers), torch.manual_seed(workers)
    made[workers] = [tensor.numpy().copy() for batch in load_batches(dataset, workers) for tensor in batch]
other = EpochBatches(images, [[0, 1], [1, 1]], train_transform(16), key=(3, 2))
draws = []
for key in ((1, 2), (1, 2), (2, 1)):
    seed_generators(*key)
    draws.append([random.random(), np.random.rand(), torch.rand(1).item()])
print(json.dumps({
    "foreign": foreign,
    "v3": all(torch.equal(states["ours"][name], states["v3"][name]) for name in states["v3"]),
    "deit": max((states["ours"][name] - states["deit"][name]).abs().max().item() for name in floating),
    "counter": [states["ours"]["norm.num_batches_tracked"].item(), network.norm.num_batches_tracked.item()],
    "moved": (states["ours"]["fc.weight"] - network.fc.weight).abs().max().item(),
    "workers": all(np.array_equal(a, b) for a, b in zip(made[0], made[2], strict=True)),
    "repeats": np.array_equal(made[0][2][0], made[0][2][1]),
    "epochs": np.array_equal(other.make(0)[0], made[0][0]),
    "labels": [made[0][1].tolist(), made[0][3].tolist()],
    "draws": draws,
}))
"""


@pytest.fixture(scope="module")
def facts(run_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, size in (("a.png", (40, 30)), ("b.png", (31, 50))):
        Image.linear_gradient("L").resize(size).convert("RGB").save(folder / name)
    return json.loads(run_python(PROBE, folder / "a.png", folder / "b.png").stdout)


def test_the_average_is_timms_bit_for_bit(facts):
    assert facts["v3"]
    assert facts["moved"] > 0.1


def test_the_average_is_deits_but_for_rounding(facts):
    """DeiT's `ModelEma` writes decay * average + (1 - decay) * value: another order of the same terms."""
    assert facts["deit"] <= 1e-14
    assert facts["counter"] == [5, 5]  # copied; DeiT's formula would truncate it to 0


def test_batches_depend_on_their_place_and_not_on_who_makes_them(facts):
    assert facts["workers"]
    assert not facts["repeats"]
    assert not facts["epochs"]
    assert facts["labels"] == [[0, 1], [1, 1]]


def test_all_generators_are_seeded_by_the_whole_key(facts):
    first, again, other = facts["draws"]
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_reference_does_not_import_paddle(facts):
    assert facts["foreign"] == []
