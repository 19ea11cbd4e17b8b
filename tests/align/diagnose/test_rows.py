"""Causes of steps without a model: real photographs through Pillow, real weights, logits and draws."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from align.compare.rows import Row
from align.compare.verdict import StepVerdict, Verdict
from align.diagnose import diagnose
from align.diagnose.families.initial import distribution
from align.diagnose.families.rounded import rounded
from align.diagnose.rows import Recorded, evidences, with_row_causes
from align.locate.divergence import Divergence, Where
from align.plan import photographs
from align.steps.metric import BATCH, labels_at_ranks

RANDOM = np.random.default_rng(1603)
PHOTOGRAPH = photographs.read(photographs.shipped()[:1])[0].pixels
DECODED = np.asarray(Image.fromarray(PHOTOGRAPH).resize((331, 251)))
MEAN, STD = (np.array(numbers).reshape(3, 1, 1) for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def resized(image, size, name="bicubic"):
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling[name.upper()]))


def normalised(image, mean=MEAN, std=STD, scale=255):
    return (image.transpose(2, 0, 1) / scale - mean) / std


SMALL = resized(DECODED, (107, 81))
CUT = SMALL[4:76, 18:88]
STAGES = {"decoded": DECODED, "resized": SMALL, "cropped": CUT, "normalised": normalised(CUT)}


def cause(step, name, port, reference, **more):
    recorded = Recorded(step, port, reference, **more)
    (evidence,) = evidences(recorded, [name], {})
    return diagnose([[evidence]])[0]


def of_stage(stage, port, **changed):
    """The cause of one stage of an image that differs."""
    reference = {f"photograph/{name}": array for name, array in (STAGES | changed).items()}
    return cause("data", f"photograph/{stage}", {**reference, f"photograph/{stage}": port}, reference)


def without_antialias(name):
    """Pillow's own affine transform reads the source with a kernel that does not widen."""
    steps = DECODED.shape[1] / 107, 0, 0, 0, DECODED.shape[0] / 81, 0
    return np.asarray(
        Image.fromarray(DECODED).transform((107, 81), Image.Transform.AFFINE, steps, Image.Resampling[name.upper()])
    )


@pytest.mark.parametrize("name", ["nearest", "bilinear", "lanczos", "box", "hamming"])
def test_another_filter_is_told_with_both(name):
    found = of_stage("resized", resized(DECODED, (107, 81), name))
    assert found.id == "interpolation"
    assert f"by {name} in the port, bicubic in the reference" in found.text
    assert found.explained == 1


STAGE_CHANGES = {
    "aspect-ratio": ("resized", resized(DECODED, (81, 81)), "resized to (81, 81) in the port, (81, 107)"),
    "resized-size": ("resized", resized(DECODED, (111, 84)), "(84, 111) in the port, (81, 107)"),
    "crop-offset": ("cropped", SMALL[4:76, 19:89], "at (4, 19) in the port, (72, 70) at (4, 18)"),
    "crop-size": ("cropped", SMALL[4:76, 18:86], "cut out (72, 68)"),
    "missing-stage": ("resized", DECODED, "is photograph/decoded unchanged"),
    "channel-order": ("decoded", DECODED[..., ::-1], "BGR"),
    "flipped": ("cropped", CUT[:, ::-1], "left and right"),
    "flipped-upside-down": ("cropped", CUT[::-1], "upside down"),
    "rotated": ("cropped", np.rot90(CUT, 3), "turned by 90 degrees clockwise"),
    "swapped-height-width": ("cropped", CUT.swapaxes(0, 1), "height and width"),
    "normalisation-mean": (
        "normalised",
        normalised(CUT, np.full((3, 1, 1), 0.5)),
        "mean (0.5, 0.5, 0.5) in the port, (0.485, 0.456, 0.406) in the reference",
    ),
    "normalisation-std": (
        "normalised",
        normalised(CUT, std=np.array([0.229, 0.224, 0.22500001]).reshape(3, 1, 1)),
        "deviation (0.229, 0.224, 0.22500001) in the port, (0.229, 0.224, 0.225) in the reference",
    ),
    "value-range": ("normalised", normalised(CUT, scale=1), "pixels are 255 times"),
    "rounded-constant": ("normalised", normalised(CUT, scale=1 / 0.00392157), "pixels are 1.00000035 times"),
}


@pytest.mark.parametrize("id", STAGE_CHANGES)
def test_a_change_of_one_stage_is_named(id):
    stage, port, words = STAGE_CHANGES[id]
    found = of_stage(stage, port)
    assert found is not None
    assert found.id == id
    assert words in found.text
    assert found.text.endswith("explains 100.0 %")


def test_channels_exchanged_before_the_normalisation_are_not_another_mean():
    assert of_stage("normalised", normalised(CUT[..., ::-1])).id == "channel-order"
    assert of_stage("normalised", normalised(CUT[:, ::-1])).id == "flipped"


def test_a_stage_that_does_nothing_or_is_nowhere_is_missing():
    erased = STAGES["normalised"].copy()
    erased[:, 10:30, 20:40] = RANDOM.normal(size=(3, 20, 20))
    assert of_stage("erased", STAGES["normalised"], erased=erased).id == "missing-stage"
    reference = {f"{image}/{name}": array for image in ("photograph", "other") for name, array in STAGES.items()}
    port = {name: array for name, array in reference.items() if not name.endswith("cropped")}
    found = cause("data", "photograph/cropped", port, reference)
    assert (found.id, "no stage cropped" in found.text) == ("missing-stage", True)
    del port["photograph/resized"]
    assert cause("data", "photograph/cropped", port, reference) is None


def test_a_part_that_is_filled_is_told_with_its_colours():
    grey, black = CUT.copy(), CUT.copy()
    grey[50:, :9], black[50:, :9] = (124, 116, 104), 0
    found = of_stage("augmented", black, augmented=grey)
    assert found.id == "fill-colour"
    assert "rows 50:72, columns 0:9 are filled with (0, 0, 0) in the port, with (124, 116, 104)" in found.text
    noise, one = STAGES["normalised"].copy(), STAGES["normalised"].copy()
    noise[:, 10:30, 20:40] = RANDOM.normal(size=(3, 20, 20))
    one[:, 10:30, 20:40] = RANDOM.normal(size=(3, 1, 1))
    assert of_stage("erased", one, erased=noise).id == "filled-with-one-colour"


def test_a_resize_without_antialias_is_told():
    found = of_stage("resized", without_antialias("bilinear"))
    assert found.id == "antialias"
    assert "bilinear without antialias" in found.text


def test_a_crop_that_half_a_pixel_moves_names_the_rule():
    wide = SMALL[:, :105]
    right, floored = wide[:72, round(35 / 2) : round(35 / 2) + 70], wide[:72, 35 // 2 : 35 // 2 + 70]
    found = of_stage("cropped", floored, resized=wide[:72], cropped=right)
    assert found.id == "crop-offset"
    assert "+0 and -1 pixels; half of the rest (0, 35) rounded down is the port's" in found.text


def test_what_nothing_explains_has_no_cause():
    noisy = SMALL.copy()
    noisy[3, 5, 1] ^= 1
    assert of_stage("resized", noisy) is None
    both = np.roll(resized(DECODED, (107, 81), "bilinear"), 1, 0) // 2
    assert of_stage("resized", both) is None
    assert of_stage("normalised", STAGES["normalised"] + RANDOM.normal(size=STAGES["normalised"].shape)) is None


def test_a_training_crop_is_made_again_from_its_box():
    box, name = np.array([10, 20, 120, 90]), "photograph/train/0/cropped"
    part = DECODED[10:130, 20:110]
    reference = {"photograph/decoded": DECODED, "photograph/train/0/box": box, name: resized(part, (80, 64))}
    found = cause("data", name, {**reference, name: resized(part, (80, 64), "bilinear")}, reference)
    assert found.id == "interpolation"


# Mixed batches.

BATCH_OF_IMAGES = RANDOM.normal(size=(4, 3, 40, 56))
LABELS = np.array([3, 9, 0, 5])
PLAN = {"data/mixup/images": BATCH_OF_IMAGES, "data/mixup/labels": LABELS}


def cutmix(lam, x, y, height=40, width=56):
    side = np.sqrt(1 - lam)
    high, wide = int(height * side), int(width * side)
    top, bottom = max(y - high // 2, 0), min(y + (high + 1) // 2, height)
    left, right = max(x - wide // 2, 0), min(x + (wide + 1) // 2, width)
    return np.array([top, bottom, left, right]), 1 - (bottom - top) * (right - left) / (height * width)


def draws():
    """Recorded boxes, lambdas as they are and as they should be: two draws of four are cut by the border."""
    port, reference = {}, {}
    for number, (lam, x, y) in enumerate(((0.3, 5, 20), (0.6, 30, 20), (0.5, 50, 22), (0.75, 24, 18))):
        box, right = cutmix(lam, x, y)
        for side, value in ((port, lam), (reference, right)):
            side[f"mixup/{number}/lambda"] = np.array(value)
            side[f"mixup/{number}/box"] = box
    return port, reference


def test_a_lambda_of_the_box_before_the_border_cuts_it():
    port, reference = draws()
    found = cause("data", "mixup/0/lambda", port, reference, plan=PLAN)
    assert found.id == "lambda-not-corrected"
    assert "lambda 0.3 in the port" in found.text
    port["mixup/0/lambda"] = np.array(0.4)
    assert cause("data", "mixup/0/lambda", port, reference, plan=PLAN) is None


def test_a_box_with_its_axes_exchanged_and_another_partner():
    box, lam = cutmix(0.6, 20, 15)
    top, bottom, left, right = box
    sides = {"port": {}, "reference": {}}
    for side in sides.values():
        side |= {"mixup/0/lambda": np.array(lam), "mixup/0/box": box}
    mixed, swapped, rolled = (BATCH_OF_IMAGES.copy() for _ in range(3))
    mixed[:, :, top:bottom, left:right] = BATCH_OF_IMAGES[::-1][:, :, top:bottom, left:right]
    swapped[:, :, left:right, top:bottom] = BATCH_OF_IMAGES[::-1][:, :, left:right, top:bottom]
    rolled[:, :, top:bottom, left:right] = np.roll(BATCH_OF_IMAGES, 1, 0)[:, :, top:bottom, left:right]
    reference = {**sides["reference"], "mixup/0/images": mixed}
    for made, id in ((swapped, "cutmix-axes"), (rolled, "mixup-partner"), (BATCH_OF_IMAGES, "unmixed-batch")):
        found = cause("data", "mixup/0/images", {**sides["port"], "mixup/0/images": made}, reference, plan=PLAN)
        assert found.id == id


def test_labels_changed_in_place_and_targets_smoothed_otherwise():
    name = "mixup/0/labels_after"
    found = cause("data", name, {name: LABELS.reshape(-1, 1)}, {name: LABELS}, plan=PLAN)
    assert found.id == "changed-in-place"
    assert "(4, 1) afterwards in the port, (4,)" in found.text
    plain = np.eye(10)[LABELS]

    def targets(on, off):
        soft = np.where(plain == 1, on, off)
        return {"mixup/0/lambda": np.array(0.7), "mixup/0/targets": soft * 0.7 + soft[::-1] * 0.3}

    for port, id in ((targets(0.9, 0.01), "smoothing-formula"), (targets(0.82, 0.02), "label-smoothing")):
        assert cause("data", "mixup/0/targets", port, targets(0.91, 0.01), plan=PLAN).id == id


# The order of an epoch.

ORDER = RANDOM.permutation(100)
SAMPLER = {
    "sampler/100x1/0/0": np.repeat(ORDER, 3)[:100],
    "sampler/100x1/0/3": np.repeat(RANDOM.permutation(100), 3)[:100],
    "sampler/100x1/0/sizes": np.array([16] * 6 + [6, 100]),
}


@pytest.mark.parametrize(
    ("id", "row", "port"),
    [
        ("shuffle-seed", "3", SAMPLER["sampler/100x1/0/0"]),
        ("repeats", "0", ORDER),
        ("not-shuffled", "0", np.repeat(np.arange(100), 3)[:100]),
        ("epoch-length", "0", np.repeat(ORDER, 3)[:112]),
        ("drop-last", "sizes", np.array([16] * 6 + [4, 7, 100])),
    ],
)
def test_another_order_is_named(id, row, port):
    name = f"sampler/100x1/0/{row}"
    assert cause("data", name, {**SAMPLER, name: port}, SAMPLER).id == id


@pytest.mark.parametrize(("port", "words"), [([1, 1], "the same order"), ([0, 0], "another order each time")])
def test_a_shuffle_that_the_epoch_does_not_decide(port, words):
    name = "sampler/free/reshuffled"
    found = cause("data", name, {name: np.array(port, bool)}, {name: np.array([True, False])})
    assert found.id == "shuffle-seed"
    assert words in found.text


def test_another_permutation_has_no_cause():
    name = "sampler/100x1/0/0"
    assert cause("data", name, {**SAMPLER, name: np.repeat(RANDOM.permutation(100), 3)[:100]}, SAMPLER) is None


# Weights.

SQUARE = RANDOM.normal(size=(24, 24)).astype(np.float32)
WEIGHTS = {
    "blocks.0.attn.proj.weight": SQUARE,
    "blocks.0.attn.qkv.weight": RANDOM.normal(size=(36, 12)).astype(np.float32),
    "blocks.0.mlp.fc1.weight": RANDOM.normal(size=(48, 12)).astype(np.float32),
    "blocks.0.norm1.weight": RANDOM.normal(size=24).astype(np.float32),
    "blocks.0.norm1.bias": RANDOM.normal(size=24).astype(np.float32),
    "pos_embed": RANDOM.normal(size=(1, 6, 4, 5)).astype(np.float32),
}
PROJ, QKV, NORM, POSITION = (list(WEIGHTS)[index] for index in (0, 1, 3, 5))
THIRDS = np.split(WEIGHTS[QKV], 3)


@pytest.mark.parametrize(
    ("id", "name", "port"),
    [
        ("weight-transposed", PROJ, SQUARE.T),
        ("weight-transposed", QKV, WEIGHTS[QKV].T),
        ("weight-precision", PROJ, SQUARE.astype(np.float16).astype(np.float32)),
        ("weight-precision", PROJ, rounded(SQUARE, "bfloat16").astype(np.float32)),
        ("qkv-order", QKV, np.concatenate([THIRDS[1], THIRDS[0], THIRDS[2]])),
        ("qkv-order", QKV, WEIGHTS[QKV].reshape(3, 12, 12).swapaxes(0, 1).reshape(36, 12)),
        ("permuted-channels", PROJ, np.roll(SQUARE, 6, 0)),
        ("swapped-height-width", POSITION, WEIGHTS[POSITION].swapaxes(2, 3).reshape(1, 6, 4, 5)),
        ("weight-exchanged", NORM, WEIGHTS["blocks.0.norm1.bias"]),
        ("weight-constant", PROJ, np.zeros_like(SQUARE)),
        ("scale", PROJ, SQUARE * np.float32(0.5)),
    ],
)
def test_a_weight_that_was_loaded_wrong(id, name, port):
    found = cause("weights", name, {**WEIGHTS, name: port}, WEIGHTS)
    assert found is not None
    assert found.id == id


def test_a_renamed_key_is_told_by_both_names():
    port = {("norm.weight" if name == NORM else name): array for name, array in WEIGHTS.items()}
    for name in (NORM, "norm.weight"):
        found = cause("weights", name, port, WEIGHTS)
        assert found.id == "key-renamed"
        assert f"the port has {NORM} under the name norm.weight" in found.text
    del port["norm.weight"]
    assert cause("weights", NORM, port, WEIGHTS).id == "missing-key"
    # Names that are shifted: the first is missing, the second holds the first's array.
    first, second, third = "file/pools.0.weight", "file/pools.1.weight", "file/pools.2.weight"
    arrays = RANDOM.normal(size=(2, 8, 9))
    reference = {**WEIGHTS, first: arrays[0], second: arrays[1]}
    shifted = {**WEIGHTS, second: arrays[0], third: arrays[1]}
    for name in (first, second, third):
        assert cause("weights", name, shifted, reference).id == "key-renamed"
    # An array of another value under another name is no renaming, nor is the key then the only difference.
    assert cause("weights", NORM, {**port, "norm.weight": RANDOM.normal(size=24)}, WEIGHTS) is None


def test_a_weight_that_was_not_loaded_has_the_initial_distribution():
    initial = {f"{PROJ}/sample": np.sort(RANDOM.uniform(-0.2, 0.2, 16384)), f"{NORM}/sample": np.ones(1024)}
    port = {**WEIGHTS, PROJ: RANDOM.uniform(-0.2, 0.2, SQUARE.shape), NORM: np.ones(24)}
    for name in (PROJ, NORM):
        assert cause("weights", name, port, WEIGHTS, steps={"init": initial}).id == "weight-stale"
    port[PROJ] = RANDOM.uniform(-0.3, 0.3, SQUARE.shape)
    assert cause("weights", PROJ, port, WEIGHTS, steps={"init": initial}) is None


# Metrics.

LOGITS, TABLE = RANDOM.normal(size=(6, 20)), RANDOM.normal(size=(43, 20))
TARGET = np.array(
    [np.argsort(-row)[rank] for row, rank in zip(TABLE, np.resize((0, 3, 7, 2, 0, 4, 9), 43), strict=True)]
)


def accuracy(logits, targets, k):
    return float(np.mean([label in np.argsort(-row)[:k] for row, label in zip(logits, targets, strict=True)]))


def metrics(ks=(1, 5), count=accuracy, mean=lambda e, n: (e @ n / n.sum(), n.sum())):
    batches = [(TABLE[i : i + BATCH], TARGET[i : i + BATCH]) for i in range(0, 43, BATCH)]
    sizes = np.array([len(targets) for _, targets in batches])
    labels = labels_at_ranks(LOGITS)
    whole = [mean(np.array([count(*batch, k) for batch in batches]), sizes) for k in ks]
    names = ("acc1", "acc5", "evaluate/acc1", "evaluate/acc5", "evaluate/samples")
    numbers = (*(count(LOGITS, labels, k) for k in ks), whole[0][0], whole[1][0], whole[0][1])
    return {name: np.array(float(number)) for name, number in zip(names, numbers, strict=True)}


@pytest.mark.parametrize(
    ("id", "row", "change"),
    [
        ("accuracy-scale", "acc1", {"count": lambda x, y, k: 100 * accuracy(x, y, k)}),
        ("top-k", "evaluate/acc5", {"ks": (1, 4)}),
        ("top-k", "evaluate/acc1", {"ks": (4, 5)}),
        ("least-logits", "acc1", {"count": lambda x, y, k: accuracy(-x, y, k)}),
        ("mean-of-batches", "evaluate/acc1", {"mean": lambda e, n: (e.mean(), n.sum())}),
        ("last-batch-dropped", "evaluate/acc1", {"mean": lambda e, n: (e[:-1] @ n[:-1] / n[:-1].sum(), n[:-1].sum())}),
        ("last-batch-only", "evaluate/acc1", {"mean": lambda e, n: (e[-1] * n[-1] / n.sum(), n.sum())}),
        ("sample-count", "acc1", {"count": lambda x, y, k: accuracy(x, y, k) * len(y) / (len(y) + 1)}),
    ],
)
def test_all_numbers_of_the_metric_are_made_again(id, row, change):
    port, reference = metrics(**change), metrics()
    assert port[row] != reference[row]
    more = {"plan": {"metric/logits": TABLE, "metric/target": TARGET}, "steps": {"forward": {"logits": LOGITS}}}
    found = cause("metric", row, port, reference, **more)
    assert found is not None
    assert found.id == id
    assert f"{row} {float(port[row]):.6g} in the port, {float(reference[row]):.6g} in the reference" in found.text
    port["evaluate/acc5"] = port["evaluate/acc5"] + 1 / 43  # what only some of the numbers say is not said
    assert cause("metric", row, port, reference, **more) is None


# Initial distributions.


def initial(port, reference):
    sides = ({"fc.weight/sample": np.sort(side), "fc.weight/std": np.array(np.std(side))} for side in (port, reference))
    return cause("init", "fc.weight/std", *sides)


def test_initial_distributions_are_told_on_both_sides():
    narrow, size = RANDOM.uniform(-0.125, 0.125, 16384), 16384
    wide = initial(RANDOM.uniform(-(6**0.5) / 8, 6**0.5 / 8, size), narrow)
    assert wide.id == "initial-scale"
    assert re.search(
        r"uniform\(±0.306\d\) in the port, uniform\(±0.125\) in the reference: 2.4\d+ times .* sqrt\(6\)", wide.text
    )
    bias = initial(np.zeros(size), narrow)
    assert bias.id == "initial-distribution"
    assert "constant 0 in the port, uniform(±0.125) in the reference" in bias.text
    normal = initial(RANDOM.normal(0, 0.125 / 3**0.5, size), narrow)
    assert normal.id == "initial-distribution"
    assert "normal(mean " in normal.text
    assert initial(RANDOM.uniform(-0.125, 0.125, size) + 0.05, narrow).id == "initial-mean"


def test_one_distribution_has_no_cause_and_an_unknown_one_none_either():
    draws = RANDOM.uniform(-1, 1, (2, 16384))
    two = np.where(draws[0] > 0, draws[0] ** 3, draws[0])
    assert distribution(two).startswith("random in [")
    assert initial(two, draws[1]) is None


# How causes are attached.


def test_a_cause_is_attached_to_its_row_and_to_none_else(monkeypatch):
    name = "photograph/resized"
    reference = {f"photograph/{stage}": array for stage, array in STAGES.items()}
    port = {**reference, name: resized(DECODED, (107, 81), "bilinear")}
    monkeypatch.setattr("align.diagnose.rows.recorded", lambda runs, step: Recorded(step, port, reference))
    rows = tuple(Row("data", row, "output", "misaligned" if row == name else "aligned") for row in reference)
    result, runs = Verdict("case", (StepVerdict("data", rows),)), SimpleNamespace()
    line = Where("data.py", 3, 3, "x = y")
    lined = Divergence("data", "", f"{name} and 3 more: `x` differs", float("inf"), line, None)
    other = Divergence("data", "", "strip/resized: `y` differs", float("inf"), line, None)
    first, second = with_row_causes(result, runs, (lined, other))
    assert first.cause["id"] == "interpolation"
    assert second is other
    (made,) = with_row_causes(result, runs, ())
    assert (made.step, made.port, made.what, made.cause["id"]) == ("data", None, f"{name} differs", "interpolation")


def test_a_stage_that_the_port_has_nowhere_is_told_before_what_is_made_later(monkeypatch):
    images = ("photograph", "other")
    reference = {f"{image}/{stage}": array for image in images for stage, array in STAGES.items()}
    port = {row: array for row, array in reference.items() if not row.endswith("cropped")}
    monkeypatch.setattr("align.diagnose.rows.recorded", lambda runs, step: Recorded(step, port, reference))
    rows = tuple(Row("data", row, "output", "aligned" if row in port else "missing") for row in reference)
    line = Where("data.py", 3, 3, "x = y")
    later = Divergence("data", "", "photograph/normalised: `z` differs", float("inf"), line, None)
    result = Verdict("case", (StepVerdict("data", rows),))
    made, kept = with_row_causes(result, SimpleNamespace(), (later,))
    assert (made.what, made.cause["id"], kept) == ("photograph/cropped is missing", "missing-stage", later)
