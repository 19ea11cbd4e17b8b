"""Evaluation data of both sides: every stage of every image equal to the bit, folders listed and refused alike."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDES = ("torch_ref", "paddle_impl")
START = "import runpy; runpy.run_module('tests.models.data_probe', run_name='__main__')"
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "rocket.jpg",
)
STAGES = ["decoded", "resized", "cropped", "normalised"]


def odd_images(folder):
    """Modes, sizes and tags that real folders hold besides RGB photographs."""
    rng = np.random.default_rng(7)
    noise = lambda height, width, channels: rng.integers(0, 256, (height, width, channels), dtype="uint8")  # noqa: E731
    rgb = Image.fromarray(noise(251, 331, 3))  # margins that a floored centre crop gets wrong
    rgb.save(folder / "odd.png")
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("1").save(folder / "bilevel.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.quantize(32).save(folder / "palette.png", transparency=3)
    Image.fromarray(noise(260, 300, 4), "RGBA").save(folder / "alpha.png")
    Image.fromarray(rng.integers(0, 65536, (300, 260), dtype="uint16")).save(folder / "sixteen_bit.png")
    Image.fromarray(noise(5, 7, 3)).save(folder / "tiny.PNG")
    Image.fromarray(noise(200, 10, 3)).save(folder / "strip.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    rgb.save(folder / "turned.jpg", exif=exif)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    skimage_data = pytest.importorskip("skimage.data")
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    folder = tmp_path_factory.mktemp("images")
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage_data.__file__).parent / name, folder)
    for name in ("china.jpg", "flower.jpg"):
        shutil.copy(Path(sklearn_datasets.__file__).parent / "images" / name, folder)
    odd_images(folder)
    return folder


@pytest.fixture(scope="module")
def bad(folder, tmp_path_factory):
    """Files that look like images and are none."""
    bad = tmp_path_factory.mktemp("bad")
    whole = (folder / "china.jpg").read_bytes()
    (bad / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (bad / "empty.png").touch()
    (bad / "text.png").write_text("not an image")
    damaged = bytearray((folder / "coffee.png").read_bytes())
    damaged[5000:9000] = bytes(4000)
    (bad / "damaged.png").write_bytes(damaged)
    return bad


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Image folders, good and bad, by name."""
    root = tmp_path_factory.mktemp("folders")
    files = {
        "classes": (
            "b/2.PNG",
            "b/1.jpg",
            "a/z.jpeg",
            "a/deep/y.JPG",
            "a/notes.txt",
            ".hidden/x.jpg",
            "b/.x.jpg",
            "top.txt",
        ),
        "loose": ("2.png", "1.JPG", "10.webp", "notes.txt"),
        "empty": (),
        "text_only": ("a/notes.txt",),
        "empty_class": ("a/1.jpg", "b/notes.txt"),
        "mixed": ("a/1.jpg", "stray.png"),
    }
    for name, paths in files.items():
        (root / name).mkdir()
        for path in paths:
            (root / name / path).parent.mkdir(parents=True, exist_ok=True)
            (root / name / path).touch()
    return {**{name: root / name for name in files}, "missing": root / "missing", "file": root / "loose" / "2.png"}


@pytest.fixture(scope="module")
def facts(folder, bad, folders, run_python, tmp_path_factory):
    """{package: what data_probe.py writes}, listings by the folder's name."""
    out = tmp_path_factory.mktemp("facts")
    for package in SIDES:
        run_python(START, package, folder, bad, out / package, *folders.values())
    facts = {package: json.loads((out / package).read_text()) for package in SIDES}
    return {k: {**v, "listings": dict(zip(folders, v["listings"], strict=True))} for k, v in facts.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_stage_is_equal_to_the_bit(facts, dtype):
    reference, port = (facts[package]["stages"][dtype] for package in SIDES)
    assert len(reference) == len(PHOTOGRAPHS) + 2 + 10
    assert list(port) == list(reference)
    for image in reference:
        for stage in STAGES:  # in order, so that the first to differ is named
            assert port[image][stage] == reference[image][stage], f"{image}: {stage}"


@pytest.mark.parametrize("package", SIDES)
def test_stages_are_the_steps_of_the_evaluation_transform(facts, package):
    for dtype in ("float32", "float64"):
        for image, found in facts[package]["stages"][dtype].items():
            assert list(found) == [*STAGES, "composed"]
            assert found["composed"] == found["normalised"], image
            assert found["cropped"][:2] == ["uint8", [224, 224, 3]], image
            assert found["normalised"][:2] == [dtype, [3, 224, 224]], image


@pytest.mark.parametrize("package", SIDES)
def test_the_shorter_side_becomes_248_and_orientation_tags_are_not_applied(facts, package):
    found = facts[package]["stages"]["float32"]
    assert found["odd.png"]["resized"][1] == [248, int(248 * 331 / 251), 3]
    assert found["strip.bmp"]["resized"][1] == [4960, 248, 3]
    assert found["tiny.PNG"]["resized"][1] == [248, int(248 * 7 / 5), 3]
    assert found["turned.jpg"]["decoded"][1] == [251, 331, 3]


@pytest.mark.parametrize("package", SIDES)
def test_classes_are_the_sorted_sub_folders(facts, folders, package):
    root = folders["classes"]
    expected = [("a/z.jpeg", 0), ("a/deep/y.JPG", 0), ("b/1.jpg", 1), ("b/2.PNG", 1)]
    assert facts[package]["listings"]["classes"] == [[str(root / path), index] for path, index in expected]


@pytest.mark.parametrize("package", SIDES)
def test_images_without_class_folders_have_no_label(facts, folders, package):
    assert facts[package]["listings"]["loose"] == [
        [str(folders["loose"] / name), -1] for name in ("1.JPG", "10.webp", "2.png")
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "no images in {root}"),
        ("text_only", "no images in {root}"),
        ("missing", "no such image folder: {root}"),
        ("file", "no such image folder: {root}"),
        ("empty_class", "class folder {root}/b has no images"),
        ("mixed", "{root} mixes class folders with 1 image(s) of no class, such as stray.png"),
    ],
)
@pytest.mark.parametrize("package", SIDES)
def test_unusable_folder_is_named(facts, folders, package, name, message):
    assert facts[package]["listings"][name].startswith(message.format(root=folders[name]))


@pytest.mark.parametrize("name", ["cut.jpg", "empty.png", "text.png", "damaged.png", "missing.jpg"])
@pytest.mark.parametrize("package", SIDES)
def test_unreadable_image_is_named(facts, bad, package, name):
    message = facts[package]["refused"][name]
    assert message.startswith(f"cannot read image {bad / name}: ")
    assert message.endswith("; remove or replace it")


@pytest.mark.parametrize("package", SIDES)
def test_crop_larger_than_the_resized_image_is_refused(facts, package):
    """torchvision would pad it with black in silence."""
    assert facts[package]["too_small"] == "a shorter side of 200 px is too small for a crop of 224 x 224 px"
