"""`data`: images after every stage of evaluation and of training, mixed batches, and the order of an epoch.

Each side decodes, resizes and augments with its own code. The random choices of a training stage come from a scope of
its own, so that they are the same on both sides whatever an earlier stage drew; stages are recorded in order, so that
the first red row of an image is the first transform that differs.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from align.case import Case
from align.plan import folders
from align.record.context import Context

SIZE = (64, 80)  # (height, width) of a training image here: not square, and quick
PHOTOGRAPHS = 3  # of the plan's, beside its variants, go through the training transforms
# The recipe as it is by default, twice; then without RandAugment, which lets colour jitter in, and erased for certain.
RECIPES: tuple[dict[str, Any], ...] = ({}, {}, {"auto_augment": None, "re_prob": 1.0})
OPERATIONS = 2  # draws of each operation of RandAugment
MIXUPS = 12  # draws: mixup, CutMix, and boxes that the border cuts are all among them
# (images, processes): fewer than the 256 that an epoch is rounded to, more, and with ragged ends.
SAMPLERS = ((7, 2), (100, 3), (600, 1), (600, 4))
BATCH = 16
SHOWN = 2  # wrong chains of one sort that are run again to find the line: the first, and one that may tell more

Wanted = Callable[[str], bool]


def narrowed(rows: Collection[str], case: Case) -> list[str]:
    """The images, draws, operations and samplers, as beginnings of row names, whose first wrong ones are run again."""
    sorts: dict[str, list[str]] = {}
    for row in rows:
        parts = row.split("/")
        if parts[0] in ("operations", "mixup", "sampler", "folder"):
            sort, beginning = "/".join(parts[: 2 if parts[0] == "operations" else 1]), "/".join(parts[:-1])
            if parts[0] in ("sampler", "folder"):
                beginning = "/".join(parts[: 2 if parts[0] == "sampler" else 1])
        else:
            sort, beginning = "/".join(parts[1:-1]), "/".join(parts[:-1])
        found = sorts.setdefault(sort, [])
        if beginning not in found and len(found) < SHOWN:
            found.append(beginning)
    return [beginning for found in sorts.values() for beginning in found]


def traced(context: Context, part: Collection[str] | None = None) -> None:
    """The step, or those parts of it that `narrowed` has chosen."""
    _record(context, lambda name: part is None or name in part)


def record(context: Context) -> None:
    _record(context, lambda name: True)


def _record(context: Context, wanted: Wanted) -> None:
    images = context.plan.images
    names = list(images)
    plain = [name for name in names if not name.startswith("variant-")]
    trained = {*plain[:PHOTOGRAPHS], *names} - {*plain[PHOTOGRAPHS:]}
    data, augment, sampler = (_module(context, name) for name in ("data", "augment", "sampler"))
    assert data is not None
    for index, (name, path) in enumerate(images.items()):
        if wanted(name):
            for stage, value in data.eval_stages(str(path)).items():
                context.emit(f"{name}/{stage}", value, "output", headline=True)
        if augment and name in trained:
            _record_training(context, data, augment, name, path, wanted)
        context.progress(index + 1, len(images))
    if augment:
        _record_operations(context, augment, data.load_image(str(images[plain[0]])), wanted)
        _record_mixup(context, augment, wanted)
    if sampler:
        _record_order(context, sampler, wanted)
    if hasattr(data, "list_images") and wanted("folder"):
        _record_folder(context, data)


def _module(context: Context, name: str) -> ModuleType | None:
    """A twin of the side's package; None where it is not there: rows that one side has are missing in the other."""
    try:
        return context.package(name)
    except ModuleNotFoundError as error:
        if name == "data" or not str(error.name).endswith(f".{name}"):
            raise
        return None


def _record_training(
    context: Context, data: ModuleType, augment: ModuleType, name: str, path: Path, wanted: Wanted
) -> None:
    draws = [draw for draw in range(len(RECIPES)) if wanted(f"{name}/train/{draw}")]
    if not draws and not wanted(f"{name}/train"):
        return
    image = data.load_image(str(path))
    for draw in draws:
        value, recipe = image, RECIPES[draw]
        for stage, transform in augment.train_transforms(SIZE, **recipe).items():
            scope = f"data/{name}/{draw}/{stage}"
            if stage == "cropped":
                with context.randomness(scope):
                    box = transform.get_params(value, transform.scale, transform.ratio)
                context.emit(f"{name}/train/{draw}/box", np.array(box), "input")
            with context.randomness(scope):
                value = transform(value)
            recorded = value if context.side.is_tensor(value) else np.asarray(value)
            context.emit(f"{name}/train/{draw}/{stage}", recorded, "input", headline=True)
    if not wanted(f"{name}/train"):
        return
    with context.randomness(f"data/{name}/composed"):
        context.emit(f"{name}/train/composed", augment.train_transform(SIZE)(image), "input")


def _record_operations(context: Context, augment: ModuleType, image: Any, wanted: Wanted) -> None:
    """Each operation of RandAugment alone and for certain: by chance, an image in two meets one of them."""
    image = image.resize(SIZE[::-1])
    for operation in augment.train_transforms(SIZE)["augmented"].ops:
        operation.prob = 1.0
        for draw in range(OPERATIONS):
            scope = f"operations/{operation.name}/{draw}"
            if not wanted(scope):
                continue
            with context.randomness(f"data/{scope}"):
                context.emit(f"{scope}/augmented", np.asarray(operation(image)), "input")


def _record_mixup(context: Context, augment: ModuleType, wanted: Wanted) -> None:
    mixup = augment.build_mixup(context.case.classes)
    for draw in filter(lambda draw: wanted(f"mixup/{draw}"), range(MIXUPS)):
        images, labels = (context.tensor(f"data/mixup/{name}") for name in ("images", "labels"))
        scope, name = f"data/mixup/{draw}", f"mixup/{draw}"
        with context.randomness(scope):
            lam, box = mixup.draw(tuple(images.shape))
        with context.randomness(scope):
            mixed, targets = mixup(images, labels)
        context.emit(f"{name}/lambda", lam, "output")
        context.emit(f"{name}/box", None if box is None else np.array(box), "output")
        context.emit(f"{name}/images", mixed, "output", headline=True)
        context.emit(f"{name}/targets", targets, "output", headline=True)
        context.emit(f"{name}/labels_after", labels, "output")


def _record_order(context: Context, sampler: ModuleType, wanted: Wanted) -> None:
    for images, replicas in SAMPLERS:
        name = f"sampler/{images}x{replicas}"
        if not wanted(name):
            continue
        for rank in range(replicas):
            order = sampler.RepeatAugSampler(range(images), replicas, rank)
            batches = sampler.train_batches(order, min(BATCH, len(order)))
            for epoch in (0, 3):
                order.set_epoch(epoch)
                with context.randomness(f"data/sampler/{images}/{epoch}"):  # all ranks shuffle alike
                    context.emit(f"{name}/{rank}/{epoch}", np.array(list(order)), "output")
            sizes = [len(batch) for batch in batches]
            context.emit(f"{name}/{rank}/sizes", np.array([*sizes, len(batches), len(order)]), "output")
    if wanted("sampler/free"):
        context.emit("sampler/free/reshuffled", np.array(_reshuffled(sampler)), "output")


def _record_folder(context: Context, data: ModuleType) -> None:
    """Which files of a folder of classes are images, in which order, and of which class; what is refused."""
    usable = context.plan.classes / "usable"
    for name, root in (("classes", usable), ("loose", usable / "b")):
        found = data.list_images(root)
        names = [Path(path).relative_to(usable).as_posix() for path, _ in found]
        places = [folders.FILES.index(name) for name in names]
        context.emit(f"folder/{name}/files", np.array(places, np.int64), "output")
        context.emit(f"folder/{name}/labels", np.array([label for _, label in found], np.int64), "output")
    refused = [_refuses(data, context.plan.classes / name) for name in (*folders.UNUSABLE, "nowhere")]
    context.emit("folder/refused", np.array(refused), "output")


def _refuses(data: ModuleType, root: Path) -> bool:
    try:
        data.list_images(root)
    except ValueError:
        return True
    return False


def _reshuffled(sampler: ModuleType) -> list[bool]:
    """Whether an epoch has its order again, and whether another has the same: from the framework's own generator."""
    order = sampler.RepeatAugSampler(range(100))
    orders = []
    for epoch in (1, 1, 2):
        order.set_epoch(epoch)
        orders.append(list(order))
    return [orders[0] == orders[1], orders[1] == orders[2]]
