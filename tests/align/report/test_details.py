"""What the recordings add to a report: error maps, whose cells are where the error is, and images."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from align.compare.runs import Runs
from align.record import manifest
from align.record.manifest import Manifest, Recording
from align.record.store import StoreWriter
from align.report import html
from align.report.details import BINS, SIDE, details, error_map
from align.report.pictures import PIXELS, pictures


def cells(grid):
    return np.frombuffer(base64.b64decode(grid["bytes"]), np.uint8).reshape(grid["cells"])


def test_one_wrong_element_lights_one_cell_of_every_map():
    reference = np.ones((4, 3, 100, 7))
    port = reference.copy()
    port[2, 1, 50, 6] += 0.5
    found = error_map(port, reference)
    grid, batch, heads = cells(found["grid"]), *map(cells, found["strips"])
    assert grid.shape == (SIDE, 7) and found["grid"]["axes"] == [2, 3] and found["grid"]["lengths"] == [100, 7]
    # Cell i of 32 begins at element i * 100 // 32: element 50 is in cell 16.
    assert np.argwhere(grid).tolist() == [[16, 6]] and grid[16, 6] == 254
    assert batch.tolist() == [0, 0, 254, 0] and heads.tolist() == [0, 254, 0]
    assert found["greatest"] == 0.5
    assert sum(found["histogram"]["counts"]) == 1 and found["histogram"]["zero"] == reference.size - 1


def test_a_cell_is_the_greatest_error_of_its_block_on_a_logarithmic_scale():
    error = np.zeros((64, 64))
    error[0, 0], error[0, 1], error[2, 0], error[4, 0] = 1.0, 0.1, 0.01, 1e-9
    grid = cells(error_map(error, np.zeros_like(error))["grid"])
    assert grid[0, 0] == 254
    assert grid[1, 0] == pytest.approx(1 + 253 / 2, abs=1)  # two of four decades down
    assert grid[2, 0] == 1 and np.count_nonzero(grid) == 3  # beyond the scale, and still an error


def test_what_is_not_finite_on_one_side_only_is_told_apart():
    reference = np.array([[1.0, np.nan, np.inf, 2.0]])
    port = np.array([[1.0, np.nan, np.inf, np.nan]])
    found = error_map(port, reference)
    assert cells(found["grid"]).tolist() == [0, 0, 0, 255]
    assert found["histogram"]["nonfinite"] == 1 and found["histogram"]["zero"] == 3


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.complex64])
def test_every_recorded_type(dtype):
    reference = np.zeros((2, 3), dtype)
    port = reference.copy()
    port[1, 2] = 1
    found = error_map(port, reference)
    assert cells(found["grid"]).tolist() == [[0, 0, 0], [0, 0, 254]]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (1, 5, 1)])
def test_shapes_without_two_axes(shape):
    found = error_map(np.full(shape, 2.0), np.ones(shape))
    assert (found["grid"] is None) == (np.prod(shape) == 1)
    assert found["strips"] == []
    assert sum(found["histogram"]["counts"]) == np.prod(shape) and len(found["histogram"]["counts"]) == BINS


def row(name, verdict="misaligned", step="data"):
    return {"step": step, "name": name, "verdict": verdict}


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def test_the_first_stage_that_differs_of_each_image_is_shown():
    reference = np.zeros((400, 200, 3), np.uint8)
    port = reference.copy()
    port[:, 100:] = 100
    rows = [row("a/decoded", "aligned"), row("a/resized"), row("a/cropped"), row("b/resized"), row("x", step="loss")]
    shown = pictures(rows, lambda step, name: (reference, port))
    assert [found["row"] for found in shown] == [1, 3]
    first = shown[0]
    assert first["greatest"] == 100.0
    assert decoded(first["reference"]).shape == (PIXELS, PIXELS // 2, 3)
    assert decoded(first["port"])[0].max() == 100
    # The difference is stretched: the greatest is white.
    assert decoded(first["difference"])[:, -1].min() == 255 and decoded(first["difference"])[:, 0].max() == 0


def test_channels_first_batches_and_unlike_shapes():
    batch = np.zeros((2, 3, 8, 8), np.float32)
    port = batch.copy()
    port[1] = 1
    (of_batch,) = pictures([row("mixup/0/images")], lambda *_: (batch, port))
    assert decoded(of_batch["difference"]).shape == (8, 8, 3) and decoded(of_batch["difference"]).min() == 255
    (unlike,) = pictures([row("a/resized")], lambda *_: (np.zeros((9, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)))
    assert unlike["difference"] is None and decoded(unlike["reference"]).shape == (9, 8, 3)


def test_what_is_no_image_is_not_shown():
    assert pictures([row("mixup/0/targets")], lambda *_: (np.zeros((16, 10)), np.ones((16, 10)))) == []
    assert pictures([row("a/resized")], lambda *_: (None, np.zeros((8, 8, 3)))) == []


@pytest.mark.parametrize("step", [0.0, 1e-16, 1e-13])
def test_errors_that_are_all_but_equal(step):
    reference = np.zeros(6)
    port = 0.5 * (1 + step * np.arange(6))
    found = error_map(port, reference)["histogram"]
    assert (sum(found["counts"]), len(found["counts"]), found["zero"]) == (6, BINS, 0)


def recorded(folder, side, dtype, curve, keep=("loss",)):
    """A recording of `train_align` with a curve of 10 losses, in full or as a summary."""
    place = manifest.start(folder, f"{side}-cpu-{dtype}")
    with StoreWriter(place, "train_align") as store:
        store.add("loss", curve.astype(dtype), "curve", headline=True)
    made = Manifest("a", side, "cpu", dtype, "p", {}, steps={"train_align": 1.0}, files=store.hashes)
    recording = Recording(manifest.finish(place, made))
    if not keep:
        recording.thin({})
    return recording


@pytest.mark.parametrize("keep", [("loss",), ()])
def test_a_training_curve_is_drawn_where_it_was_kept(tmp_path, keep):
    curve = np.linspace(2, 1, 10)
    runs = Runs(
        *(
            recorded(tmp_path, side, dtype, curve + off, keep)
            for dtype in ("float32", "float64")
            for side, off in (("torch", 0.0), ("paddle", 0.5))
        )
    )
    shown = details(runs, [])["training"]
    assert [found["name"] for found in shown] == list(keep)
    assert all(found["twin_error"] == [0.5] * 10 for found in shown)


@pytest.mark.parametrize("value", [np.finfo(np.float64).max, -np.finfo(np.float64).max])
def test_the_greatest_number_stays_one_in_the_page(value):
    """Masks hold it. With four digits it would be rounded up to infinity, which JSON does not have."""
    assert html._json(html._number(float(value), 4)) == str(float(value))
