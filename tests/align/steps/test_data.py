"""`data` names, image by image, the first transform in which a port differs, and what differs in batches and epochs."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align.cases import find
from align.compare.runs import compare_runs
from align.compare.waivers import Exceptions
from align.mutate.runner import as_runs
from align.pipeline import Options, Recorder

# Sets of bugs that touch different rows: (file, text, what it becomes), and the last part of the rows to be named.
BUGS = {
    "first": (
        ("augment.py", 'scale, ratio, "bicubic"', 'scale, ratio, "bilinear"', "cropped"),
        ("augment.py", "[:, :, top:bottom, left:right]", "[:, :, left:right, top:bottom]", "images"),
        ("sampler.py", "drop_last=True", "drop_last=False", "sizes"),
    ),
    "middle": (
        ("augment.py", "paddle.rand([1]) < self.p", "paddle.rand([1]) >= self.p", "flipped"),
        ("augment.py", "1.0 - (bottom - top) * (right - left) / (height * width)", "lam", "lambda"),
        ("sampler.py", "paddle.seed(self.epoch)", "paddle.seed(0)", "reshuffled"),
    ),
    "last": (
        ("augment.py", "image[:, top : top + box_height", "image.clone()[:, top : top + box_height", "erased"),
        ("augment.py", "target.unsqueeze(1)", "target.reshape_([-1, 1])", "labels_after"),
        ("sampler.py", "place // self.num_repeats]", "place % self.count]", "0"),
    ),
}


def nothing(*_):
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Options whose folder holds the reference's recordings of `data`."""
    options = Options(find("pit_probe"), tmp_path_factory.mktemp("reference"), ("data",), ("torch",))
    with Recorder(options, nothing) as recorder:
        recorder.run()
    return options


@pytest.fixture(scope="module")
def judged(reference, paddle):
    """The verdict on `data` of a port from `roots`, and the recordings."""

    def of(out, *roots):
        options = replace(reference, out=out, sides=("paddle",), roots=roots, reference=reference.folder)
        with paddle.copied(roots), Recorder(options, nothing, {"paddle": paddle}) as recorder:
            recordings = recorder.run()
        (step,) = compare_runs(as_runs(recordings, "float32"), Exceptions()).steps
        return step, recordings

    return of


@pytest.fixture(scope="module")
def clean(judged, tmp_path_factory):
    return judged(tmp_path_factory.mktemp("clean"))


def test_the_port_is_aligned_and_every_row_could_have_failed(clean):
    step, _ = clean
    assert step.verdict == "aligned"
    assert {row.verdict for row in step.rows} == {"aligned"}


def test_what_chance_decides_has_come_both_ways(clean):
    store = clean[1]["torch", "float32"].step("data")
    boxes = [store[name] for name in store if name.startswith("mixup/") and name.endswith("/box")]
    assert 0 < len(boxes) < 12
    edges = [(box[0] == 0, box[1] == 40, box[2] == 0, box[3] == 56) for box in boxes]
    assert any(any(edge) for edge in edges)
    draws = [name.removesuffix("/erased") for name in store if name.endswith("/erased") and "/train/2/" not in name]
    before = {"flipped": "cropped", "augmented": "flipped", "erased": "normalised"}
    for stage, earlier in before.items():
        changed = [not np.array_equal(store[f"{draw}/{stage}"], store[f"{draw}/{earlier}"]) for draw in draws]
        assert 0 < sum(changed) < len(changed), stage


def test_a_variant_is_decoded_as_torchvision_would(clean):
    store = clean[1]["torch", "float32"].step("data")
    assert store["variant-turned/decoded"].shape == (251, 331, 3)
    assert store["variant-tiny/decoded"].shape == (11, 17, 3)
    assert all(store[name].ndim == 3 for name in store if name.endswith("/decoded"))
    assert sum(name.endswith("/train/composed") for name in store) == 3 + 10


@pytest.mark.parametrize("bugs", BUGS)
def test_the_first_transform_that_differs_is_named(judged, root, tmp_path, bugs):
    copy = tmp_path / "root" / "paddle_impl"
    shutil.copytree(root / "paddle_impl", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file, text, changed, _ in BUGS[bugs]:
        source = (copy / file).read_text()
        assert text in source
        (copy / file).write_text(source.replace(text, changed))
    step, _ = judged(tmp_path / "out", copy.parent)
    named = [row.name for row in step.failing]
    # An image that was erased in no draw but in the whole transform is named by that.
    assert {Path(name).name for name in named} - {"composed"} == {end for *_, end in BUGS[bugs]}, named
    assert step.worst.name in named
