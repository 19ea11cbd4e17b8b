"""Where Paddle's own parts would have trained otherwise, or not ended: each trap, and that the port is out of it."""

import json
import subprocess
import sys

import pytest
from PIL import Image

PROBE = """
import json, random, sys
from pathlib import Path

import numpy as np
import paddle

from paddle_impl.augment import train_transform
from paddle_impl.ema import build_ema
from paddle_impl.loader import EpochBatches, load_batches, seed_generators
from tests.models.teacher_paddle import small

foreign = [name for name in sys.modules if name.split(".")[0] in ("torch", "torch_ref", "timm", "torchvision")]
facts = {"foreign": foreign}

# the average keeps its own weights, of its own storage, out of the tape
network = small(3)
ema = build_ema(network)
network.fc.weight.set_value(network.fc.weight + 1.0)
facts["apart"] = float((ema.module.fc.weight - network.fc.weight).abs().max())
ema.update(network)
loss = ema(paddle.ones([2, 3, 9, 9])).sum()
facts["moved"] = float((ema.module.fc.weight - network.fc.weight).abs().max())
facts["names"] = [p.name for p in network.parameters()] == [p.name for p in ema.module.parameters()]
facts["leaf"] = all(parameter.is_leaf for parameter in ema.module.parameters())

images = [(Path(path), index) for index, path in enumerate(sys.argv[1:])]
made = {}
for workers in (0, 2):
    random.seed(workers), np.random.seed(workers), paddle.seed(workers)
    dataset = EpochBatches(images, [[0, 1], [1, 1]], train_transform(16), key=(3, 1))
    made[workers] = [tensor.numpy().copy() for batch in load_batches(dataset, workers) for tensor in batch]
facts["workers"] = all(np.array_equal(a, b) for a, b in zip(made[0], made[2], strict=True))
facts["repeats"] = np.array_equal(made[0][2][0], made[0][2][1])
facts["labels"] = [made[0][1].tolist(), made[0][3].tolist()]

# what the model draws between two batches does not depend on batches being made meanwhile
draws = []
for workers in (0, 2):
    drawn = []
    for batch, _ in enumerate(load_batches(EpochBatches(images, [[0], [1], [0]], train_transform(16)), workers)):
        seed_generators(5, batch)
        drawn += [paddle.rand([1]).item(), random.random(), np.random.rand()]
    draws.append(drawn)
facts["draws"] = draws
print(json.dumps(facts))
"""

BROKEN = """
import sys
from pathlib import Path
from paddle_impl.data import eval_transform
from paddle_impl.loader import EpochBatches, load_batches
images = [(Path(path), 0) for path in sys.argv[2:]]
for images, _ in load_batches(EpochBatches(images, [[0], [1]], eval_transform(16, 18)), workers=int(sys.argv[1])):
    print(len(images), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, size in (("a.png", (40, 30)), ("b.png", (31, 50))):
        Image.linear_gradient("L").resize(size).convert("RGB").save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def facts(run_python, folder):
    return json.loads(run_python(PROBE, folder / "a.png", folder / "b.png").stdout)


def test_the_average_has_weights_of_its_own(facts):
    assert facts["apart"] == pytest.approx(1.0, abs=1e-6)
    assert 0.99 < facts["moved"] < 1.0
    assert not facts["names"]
    assert facts["leaf"]


def test_batches_depend_on_their_place_and_not_on_who_makes_them(facts):
    assert facts["workers"]
    assert not facts["repeats"]
    assert facts["labels"] == [[0, 1], [1, 1]]


def test_what_a_model_draws_does_not_depend_on_the_workers(facts):
    without, with_two = facts["draws"]
    assert without == with_two
    assert len(set(without)) == 9


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_ends_the_loader(root, folder, workers):
    """Paddle's DataLoader waits for ever (3.3.1) if its workers raise."""
    arguments = [sys.executable, "-c", BROKEN, str(workers), str(folder / "a.png"), str(folder / "broken.png")]
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=root, timeout=120)
    assert result.returncode == 1
    assert result.stdout == "1\n"
    assert f"ValueError: cannot read image {folder / 'broken.png'}" in result.stderr


def test_the_port_does_not_import_torch(facts):
    assert facts["foreign"] == []
