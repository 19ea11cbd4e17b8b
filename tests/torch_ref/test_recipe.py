"""The reference's recipe is timm's and torchvision's: what it assembles itself is held to what they assemble."""

import json

import pytest

PROBE = """
import json, sys
from pathlib import Path
from tests.models.recipe_sides import open_side

side, recipe = open_side("torch_ref", "float32")
foreign = [name for name in sys.modules if name.split(".")[0] in ("paddle", "paddle_impl", "reprod_log")]

import skimage.data, torch
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from torchvision.datasets import ImageFolder

mean_std = {"mean": recipe.data.IMAGENET_MEAN, "std": recipe.data.IMAGENET_STD}
timms = create_transform(224, is_training=False, interpolation="bicubic", crop_pct=0.9, **mean_std)
ours = recipe.data.eval_transform(224, 248)
paths = [Path(skimage.data.__file__).parent / name for name in ("coffee.png", "rocket.jpg")]
photographs = [recipe.data.load_image(path) for path in paths]

def trained(build):
    network = side.network()
    optimizer = build(network)
    for step in range(3):
        side.set_gradients(network, step)
        optimizer.step()
    return {name: value.tolist() for name, value in side.parameters(network).items()}

print(json.dumps({
    "foreign": foreign,
    "equal": [torch.equal(ours(photograph), timms(photograph)) for photograph in photographs],
    "listed": [[str(path), index] for path, index in recipe.data.list_images(sys.argv[1])],
    "torchvision": ImageFolder(sys.argv[1]).samples,
    "adamw": trained(lambda network: recipe.optim.build_optimizer(network, "adamw", lr=0.01, weight_decay=0.3)),
    "timm_adamw": trained(lambda network: create_optimizer_v2(network, "adamw", lr=0.01, weight_decay=0.3)),
}))
"""


@pytest.fixture(scope="module")
def facts(run_python, tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    for path in ("b/2.PNG", "b/1.jpg", "a/z.jpeg", "a/deep/y.JPG", "a/notes.txt", "C/x.webp"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return json.loads(run_python(PROBE, root).stdout)


def test_evaluation_transform_is_timms(facts):
    assert facts["equal"] == [True, True]


def test_folder_is_listed_as_torchvision_lists_it(facts):
    assert len(facts["listed"]) == 5
    assert facts["listed"] == facts["torchvision"]


def test_adamw_and_its_groups_are_what_timm_creates(facts):
    assert facts["adamw"] == facts["timm_adamw"]


def test_reference_does_not_import_paddle(facts):
    assert facts["foreign"] == []
