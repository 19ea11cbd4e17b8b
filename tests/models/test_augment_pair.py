"""Training data of both sides on the same draws: stages, operations, mixed batches and epochs equal to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.plan.photographs import Photograph
from align.plan.variants import variants
from tests.models.augment_probe import MIXUPS, RECIPES, SEEDS, SIZE

SIDES = ("torch_ref", "paddle_impl")
START = "import runpy; runpy.run_module('tests.models.augment_probe', run_name='__main__')"
STAGES = {
    "default": ["cropped", "flipped", "augmented", "normalised", "erased"],
    "jitter": ["cropped", "flipped", "jittered", "normalised", "erased"],
    "plain": ["cropped", "normalised"],
    "other": ["cropped", "flipped", "augmented", "normalised", "erased"],
    "const": ["cropped", "flipped", "augmented", "normalised", "erased"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One photograph, and the variants that a plan makes of it."""
    skimage_data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("images")
    path = Path(skimage_data.__file__).parent / "chelsea.png"
    with Image.open(path) as image:
        image.save(folder / "a_photograph.png")
        variants(Photograph("a", path, np.asarray(image.convert("RGB"))), folder)
    return folder


@pytest.fixture(scope="module")
def facts(folder, run_python, tmp_path_factory):
    """{package: what augment_probe.py writes}."""
    out = tmp_path_factory.mktemp("facts")
    for package in SIDES:
        run_python(START, package, folder, out / package)
    return {package: json.loads((out / package).read_text()) for package in SIDES}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_stage_of_every_image_is_equal_to_the_bit(facts, folder, dtype):
    reference, port = (facts[package][dtype]["stages"] for package in SIDES)
    assert sorted(reference) == sorted(file.name for file in folder.iterdir())
    for image, draws in reference.items():
        assert list(port[image]) == list(draws) == [f"{name}/{seed}" for name in RECIPES for seed in range(SEEDS)]
        for draw, stages in draws.items():
            assert list(port[image][draw]) == list(stages)
            for stage, value in stages.items():  # in order, so that the first to differ is named
                assert port[image][draw][stage] == value, f"{image} {draw}: {stage}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("package", SIDES)
def test_stages_are_the_steps_of_the_training_transform(facts, package, dtype):
    for draws in facts[package][dtype]["stages"].values():
        for draw, found in draws.items():
            recipe = draw.partition("/")[0]
            assert list(found) == ["box", *STAGES[recipe], "draws", "next", "whole"]
            assert found["whole"] == found[STAGES[recipe][-1]]
            for stage in STAGES[recipe]:
                floating = stage in ("normalised", "erased")
                shape = [3, *SIZE] if floating else [*SIZE, 3]
                assert found[stage][:2] == [dtype if floating else "uint8", shape]


@pytest.mark.parametrize("package", SIDES)
def test_the_framework_is_asked_for_what_the_reference_asks_it_for(facts, package):
    """One number for a flip; four places and three factors for the jitter; as many numbers as are erased."""
    kinds = {name: set() for name in RECIPES}
    for draws in facts[package]["float32"]["stages"].values():
        for draw, found in draws.items():
            kinds[draw.partition("/")[0]].add(tuple(kind for kind, _ in found["draws"]))
    assert kinds["plain"] == {()}
    assert kinds["default"] == {("uniform",), ("uniform", "normal")}
    assert kinds["jitter"] == {("uniform", "permutation", "uniform", "uniform", "uniform", "normal")}
    assert kinds["const"] == {("uniform",)}
    assert ("uniform", "normal", "normal", "normal") in kinds["other"]


@pytest.mark.parametrize("package", SIDES)
def test_boxes_lie_inside_with_the_area_and_the_aspect_asked_for(facts, folder, package):
    sizes = {}
    for file in folder.iterdir():
        with Image.open(file) as image:
            sizes[file.name] = image.size
    tried = 0
    for name, draws in facts[package]["float32"]["stages"].items():
        width, height = sizes[name]
        for draw, found in draws.items():
            top, left, box_height, box_width = found["box"]
            assert 0 <= top <= height - box_height and 0 <= left <= width - box_width
            if draw.startswith("other") or name in ("tiny.png", "strip.bmp"):
                continue
            tried += 1
            side = 1 / min(box_width, box_height)  # a box is rounded to whole pixels
            assert 0.08 * (1 - 2 * side) <= box_width * box_height / (width * height) <= 1 + 2 * side
            assert 3 / 4 * (1 - 2 * side) <= box_width / box_height <= 4 / 3 * (1 + 2 * side)
    assert tried > 150
    strip = {tuple(found["box"]) for found in facts[package]["float32"]["stages"]["strip.bmp"].values()}
    assert (136, 0, 27, 20) in strip  # the greatest box that is not too tall, in the middle


def test_every_operation_at_every_magnitude_is_equal_to_the_bit(facts):
    reference, port = (facts[package]["operations"] for package in SIDES)
    assert len({key.split()[0] for key in reference}) == 15 + 6
    assert len(reference) == (15 + 6) * 11 * 3
    assert list(port) == list(reference)
    for key, found in reference.items():
        assert port[key] == found, key
    assert len({found[0][2] for found in reference.values()}) > len(reference) / 3


def test_every_configuration_is_read_alike(facts):
    reference, port = (facts[package]["configurations"] for package in SIDES)
    assert list(port) == list(reference)
    for key, found in reference.items():
        assert port[key] == found, key
    assert len({found[2] for found in reference.values()}) > 0.3 * len(reference)  # half of the operations are skipped


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mixed_batches_are_equal_to_the_bit(facts, dtype):
    reference, port = (facts[package][dtype]["mixup"] for package in SIDES)
    assert list(port) == list(reference)
    for draw, found in reference.items():
        for fact, value in found.items():
            assert port[draw][fact] == value, f"{draw}: {fact}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("package", SIDES)
def test_a_mixed_batch_is_what_the_draw_says(facts, package, dtype):
    digits = {"float32": 1e-6, "float64": 1e-15}[dtype]
    seen = set()
    for draw, found in facts[package][dtype]["mixup"].items():
        settings = MIXUPS[int(draw.partition("/")[0])]
        lam, box = found["lambda"], found["box"]
        assert found["as_drawn"]
        assert found["labels_after"] == [[4], [3, 0, 3, 9]]
        assert np.allclose(found["sums"], 1, rtol=0, atol=10 * digits)
        if not settings.get("label_smoothing", True):
            assert abs(found["kept"] - max(lam, 1 - lam)) <= digits
        if box is None:
            seen.add("left alone" if lam == 1 else "mixup")
            continue
        top, bottom, left, right = box
        assert 0 <= top <= bottom <= 40 and 0 <= left <= right <= 56
        assert lam == 1 - (bottom - top) * (right - left) / (40 * 56)
        at_the_border = top == 0 or left == 0 or bottom == 40 or right == 56
        seen.add("cut by the border" if at_the_border else "inside")
        assert settings.get("cutmix_alpha", 1)
    assert seen == {"left alone", "mixup", "cut by the border", "inside"}


def test_epochs_have_one_order(facts):
    reference, port = (facts[package]["orders"] for package in SIDES)
    assert list(port) == list(reference)
    for key, found in reference.items():
        assert port[key] == found, key


@pytest.mark.parametrize("package", SIDES)
def test_an_epoch_repeats_images_and_has_whole_batches_only(facts, package):
    for key, (indices, length, batches, count) in facts[package]["orders"].items():
        images, replicas, repeats, _, _ = map(int, key.split())
        assert len(indices) == length == (images // 256 * 256 // replicas or -(-images // replicas))
        size = min(8, length)
        assert [len(batch) for batch in batches] == [size] * count
        assert count == length // size
        assert [index for batch in batches for index in batch] == indices[: count * size]
        if replicas == 1:
            times = np.unique(indices, return_counts=True)[1]
            assert set(times[times != repeats]) <= {length % repeats}  # the last may be cut short
    for images, replicas in ((100, 3), (1000, 3)):  # the processes see different repeats of the same images
        ranks = [facts[package]["orders"][f"{images} {replicas} 3 {rank} 0"][0] for rank in range(replicas)]
        assert ranks[0] == ranks[1] == ranks[2]
        assert len(set(ranks[0])) == len(ranks[0])


@pytest.mark.parametrize("package", SIDES)
def test_the_epochs_number_alone_is_the_seed(facts, package):
    orders, kept = facts[package]["free"]["orders"], facts[package]["free"]["state_kept"]
    assert orders["first"] == orders["again"] != orders["other"]
    assert len(set(orders["first"])) == 86  # of 300 images 256 places, three for each
    assert kept


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("too_great", "label 4 at index 2 is outside the classes 0..3"),
        ("negative", "label -1 at index 1 is outside the classes 0..3"),
        ("column", "labels must have shape (N,), not (2, 1)"),
        ("odd", "mixup needs an even batch, not 3 images; drop the last one of an epoch"),
        ("nothing", "nothing to mix with: mixup_alpha 0.0, cutmix_alpha 0.0"),
        ("no_rank", "rank 2 is none of 2 replicas (0..1)"),
        ("no_images", "no images to sample from"),
        ("no_batch", "an epoch of 5 images has no whole batch of 6; take smaller batches"),
        ("policy", "auto_augment 'augmix-m3' is no RandAugment configuration such as 'rand-m9-mstd0.5-inc1'"),
    ],
)
@pytest.mark.parametrize("package", SIDES)
def test_what_cannot_be_done_is_told(facts, package, case, message):
    assert facts[package]["refused"][case] == message


@pytest.mark.parametrize("package", SIDES)
def test_without_mixing_there_is_no_mixup(facts, package):
    assert facts[package]["refused"]["none"] == [None]


PIPELINE = """
import random
import numpy as np, torch
from PIL import Image
from timm.data import create_transform
from torch_ref.augment import train_transform
import sys
image = Image.open(sys.argv[1])
for auto_augment in ("rand-m9-mstd0.5-inc1", None):
    settings = dict(auto_augment=auto_augment, color_jitter=0.3, re_prob=0.25, re_mode="pixel", re_count=1)
    theirs = create_transform(224, is_training=True, interpolation="bicubic", **settings)
    ours = train_transform() if auto_augment else train_transform(auto_augment=None)
    results = []
    for seed in range(20):
        for transform in (theirs, ours):
            random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
            results.append(transform(image))
        assert torch.equal(*results[-2:]), (auto_augment, seed)
    assert len({result.sum().item() for result in results}) == 20
"""


def test_the_references_transform_is_what_deit_asks_timm_for(run_python, folder):
    """facebookresearch/deit datasets.py `build_transform` and the defaults of main.py, on torch's own generator."""
    run_python(PIPELINE, folder / "a_photograph.png")


BLACK = """
import numpy as np
from PIL import Image
from torch_ref.rand_augment import rand_augment_transform
image = Image.new("RGB", (5, 4), (255, 7, 128))
op = rand_augment_transform("rand-m10-p1-inc1").ops[4]
assert op.name == "PosterizeIncreasing"
assert not np.asarray(op(image)).any() and op(image).size == (5, 4)
"""


def test_posterizing_to_no_bit_is_black(run_python):
    """The port's is compared with it in every operation; Pillow 13 refuses what timm asks it for."""
    run_python(BLACK)
