"""Training images, batches and epochs of one side: `python -m tests.models.augment_probe PACKAGE FOLDER OUT`.

Every draw is the same on both sides: those of Python and numpy by their seeds, the framework's by the harness's tape.
Writes OUT, a JSON; arrays stand in it as their fingerprints.
"""

import importlib
import json
import random
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from align.record.randomness import Tape
from tests.models.data_probe import answer, fingerprint

SIZE = (48, 61)
SEEDS = 5
RECIPES = {
    "default": {},
    "jitter": {"auto_augment": None, "re_prob": 1.0},
    "plain": {"hflip": 0.0, "color_jitter": None, "auto_augment": None, "re_prob": 0.0},
    "other": {
        "scale": (0.5, 0.9),
        "ratio": (0.5, 0.6),
        "hflip": 0.9,
        "auto_augment": "rand-m15-n3-p0.8-mmax20-mstd101",
        "re_prob": 0.9,
        "re_mode": "rand",
        "re_count": 3,
    },
    "const": {"re_prob": 1.0, "re_mode": "const"},
}
CONFIGURATIONS = (
    "rand-m9-mstd0.5-inc1",
    "rand-m5",
    "rand-n3-m10-p0.8-mstd101",
    "rand-m15-mmax20-mstd1-inc1",
    "rand-mstd0.5",
)
MIXUPS = (
    {},
    {"mixup_alpha": 0.0},
    {"cutmix_alpha": 0.0},
    {"prob": 0.5, "switch_prob": 0.9},
    {"label_smoothing": 0.0, "mixup_alpha": 2.0},
)
EPOCHS = ((1, 1), (7, 2), (100, 3), (255, 4), (256, 1), (600, 1), (600, 4), (1000, 3))


class Probe:
    """One package, and its side of the harness, in one dtype."""

    def __init__(self, package, dtype):
        name = package.partition("_")[0]
        module = importlib.import_module(f"align.sides.{name}")
        self.side = getattr(module, f"{name.capitalize()}Side")(device="cpu", threads=1, tf32=False)
        self.side.set_precision(dtype)
        self.data, self.augment, self.rand_augment, self.sampler = (
            importlib.import_module(f"{package}.{part}") for part in ("data", "augment", "rand_augment", "sampler")
        )

    @contextmanager
    def draws(self, seed):
        """The draws of a seed; hands out the tape, whose log tells those of the framework."""
        random.seed(seed)
        np.random.seed(seed)
        tape = Tape(seed, "")
        with self.side.drawing(tape):
            yield tape

    def array(self, value):
        return self.side.to_numpy(value) if self.side.is_tensor(value) else np.asarray(value)

    def stages(self, path):
        """By recipe and seed: the box, every stage, what the whole transform gives, and the draws that both made."""
        image = self.data.load_image(path)
        found = {}
        for name, recipe in RECIPES.items():
            transforms = self.augment.train_transforms(SIZE, **recipe)
            whole = self.augment.train_transform(SIZE, **recipe)
            for seed in range(SEEDS):
                facts = found[f"{name}/{seed}"] = {}
                crop, value = transforms["cropped"], image
                with self.draws(seed):
                    facts["box"] = list(crop.get_params(image, crop.scale, crop.ratio))
                with self.draws(seed) as tape:
                    for stage, transform in transforms.items():
                        value = transform(value)
                        facts[stage] = fingerprint(self.array(value).copy())
                    facts["draws"] = [[draw.kind, list(draw.shape)] for draw in tape.log]
                    facts["next"] = [random.random(), np.random.rand()]
                with self.draws(seed):
                    facts["whole"] = fingerprint(self.array(whole(image)))
        return found

    def operations(self, image):
        """Every operation of both lists, at every magnitude and some seeds, applied for certain."""
        found = {}
        for increasing in (0, 1):
            for magnitude in range(11):
                hparams = {"img_mean": (1, 2, 3), "interpolation": 3}
                configuration = f"rand-m{magnitude}-p1-mstd0.5-inc{increasing}"
                for op in self.rand_augment.rand_augment_transform(configuration, hparams).ops:
                    for seed in range(3):
                        random.seed(seed)
                        found[f"{op.name} {magnitude} {seed}"] = [fingerprint(np.asarray(op(image))), random.random()]
        return found

    def configurations(self, image):
        found = {}
        for configuration in CONFIGURATIONS:
            for name, hparams in (("", None), ("black", {"img_mean": (0, 0, 0)})):
                transform = self.rand_augment.rand_augment_transform(configuration, hparams)
                for seed in range(30):
                    random.seed(seed)
                    np.random.seed(seed)
                    found[f"{configuration} {name} {seed}"] = fingerprint(np.asarray(transform(image)))
        return found

    def mixup(self):
        """By settings and seed: lambda, box, fingerprints, whether the labels stayed, and what the pixels add up to."""
        images = np.random.default_rng(0).standard_normal((4, 3, 40, 56))
        labels = np.array([3, 0, 3, 9])
        found = {}
        for number, settings in enumerate(MIXUPS):
            mixup = self.augment.Mixup(num_classes=10, **settings)
            for seed in range(25):
                given = self.side.from_numpy(images), self.side.from_numpy(labels)
                with self.draws(seed):
                    lam, box = mixup.draw(images.shape)
                with self.draws(seed):
                    mixed, targets = map(self.side.to_numpy, mixup(*given))
                found[f"{number}/{seed}"] = {
                    "lambda": lam,
                    "box": box,
                    "images": fingerprint(mixed),
                    "targets": fingerprint(targets),
                    "as_drawn": bool(np.array_equal(mixed, expected(images.astype(mixed.dtype), lam, box))),
                    "kept": float(targets[1].max()) if not mixup.label_smoothing else None,  # of two unlike labels
                    "sums": [float(total) for total in targets.sum(1)],
                    "labels_after": [list(given[1].shape), self.side.to_numpy(given[1]).tolist()],
                }
        return found

    def orders(self):
        """By length, processes, rank, repeats and epoch: indices, batches, lengths."""
        found = {}
        for images, replicas in EPOCHS:
            for repeats in (1, 3):
                for rank in range(replicas):
                    order = self.sampler.RepeatAugSampler(range(images), replicas, rank, num_repeats=repeats)
                    batches = self.sampler.train_batches(order, min(8, len(order)))
                    for epoch in (0, 1):
                        order.set_epoch(epoch)
                        with self.draws(epoch):
                            indices = list(order)
                        with self.draws(epoch):
                            cut = [list(batch) for batch in batches]
                        key = f"{images} {replicas} {repeats} {rank} {epoch}"
                        found[key] = [indices, len(order), cut, len(batches)]
        return found

    def free(self):
        """Without a tape, from the framework's own generators."""
        order = self.sampler.RepeatAugSampler(range(300))
        orders = {}
        for name, epoch in (("first", 1), ("again", 1), ("other", 2)):
            order.set_epoch(epoch)
            orders[name] = list(order)
        return {"orders": orders, "state_kept": self.state_kept(order)}

    def state_kept(self, order):
        """Whether a number drawn after a seed is the same with an epoch begun in between."""
        draws = []
        for between in (False, True):
            self.seed(5)
            if between:
                list(order)
            draws.append(self.draw())
        return draws[0] == draws[1]

    def seed(self, seed):
        framework = sys.modules[self.side.name]
        (framework.manual_seed if self.side.name == "torch" else framework.seed)(seed)

    def draw(self):
        return float(sys.modules[self.side.name].rand([1]).item())

    def refused(self):
        """The message of every ValueError that is due."""
        mixup = self.augment.Mixup(num_classes=4)
        batch = lambda count, labels: (  # noqa: E731
            self.side.from_numpy(np.zeros((count, 3, 8, 8))),
            self.side.from_numpy(np.array(labels)),
        )
        sampler = self.sampler.RepeatAugSampler
        return {
            "too_great": answer(mixup, *batch(4, [0, 1, 4, 2])),
            "negative": answer(mixup, *batch(2, [0, -1])),
            "column": answer(mixup, *batch(2, [[0], [1]])),
            "odd": answer(mixup, *batch(3, [0, 1, 2])),
            "nothing": answer(lambda: self.augment.Mixup(0.0, 0.0)),
            "no_rank": answer(lambda: sampler(range(9), 2, 2)),
            "no_batch": answer(lambda: self.sampler.train_batches(sampler(range(9), 2), 6)),
            "no_images": answer(lambda: sampler([])),
            "policy": answer(lambda: self.augment.train_transforms(auto_augment="augmix-m3")),
            "none": [self.augment.build_mixup(4, 0.0, 0.0)],
        }


def expected(images, lam, box):
    """What a batch becomes, in numpy."""
    if box is None:
        return images * images.dtype.type(lam) + images[::-1] * images.dtype.type(1 - lam)
    top, bottom, left, right = box
    mixed = images.copy()
    mixed[:, :, top:bottom, left:right] = images[::-1, :, top:bottom, left:right]
    return mixed


def main(package, folder, out):
    probe = Probe(package, "float32")
    files = sorted(Path(folder).iterdir())
    image = probe.data.load_image(files[0]).resize((150, 100))
    facts = {
        "operations": probe.operations(image),
        "configurations": probe.configurations(image),
        "orders": probe.orders(),
        "free": probe.free(),
        "refused": probe.refused(),
    }
    for dtype in ("float32", "float64"):
        probe.side.set_precision(dtype)
        facts[dtype] = {"stages": {file.name: probe.stages(file) for file in files}, "mixup": probe.mixup()}
    Path(out).write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
