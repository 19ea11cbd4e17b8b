"""Making a plan and opening one. Its folder holds `plan.json`, `plan.tensors` and the image files themselves."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from align.case import Case, Training
from align.errors import UsageError
from align.plan import digits, folders, gradients, inputs, photographs, weights
from align.plan.variants import variants
from align.record import manifest
from align.record.store import Store, StoreWriter
from align.sides import Spec

SCHEMA = "plan/1"


@dataclass(frozen=True)
class Plan:
    """An opened plan: its description, its tensors, and the image files by name."""

    folder: Path
    id: str
    description: Mapping[str, Any]
    tensors: Store

    @property
    def images(self) -> dict[str, Path]:
        return {name: self.folder / "images" / file for name, file in self.description["images"].items()}

    @property
    def classes(self) -> Path:
        """Where the folders of `align.plan.folders` are."""
        return self.folder / "classes"

    @property
    def sources(self) -> dict[str, Any]:
        """What the plan was made from, each in a form that can be compared: recordings of other sources are not."""
        told = self.description
        images = sorted(told["hashes"][file] for file in told["images"].values())
        return {
            "case": told["case"]["name"],
            "seed": told["case"]["seed"],
            "images": blake3("".join(images).encode()).hexdigest(),
            "weights": told["weights"],
            "plan": self.id,
        }


def open_plan(folder: Path) -> Plan:
    try:
        text = (folder / "plan.json").read_bytes()
        description = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: not a plan ({error}); run the torch side first") from None
    return Plan(folder, blake3(text).hexdigest()[:12], description, Store(folder, "plan"))


def build(
    case: Case,
    specs: list[Spec],
    training_specs: list[Spec],
    parent: Path,
    data: Path | None = None,
    given: tuple[str, Mapping[str, np.ndarray]] | None = None,
) -> Plan:
    """Make the plan of a case under `parent`, named by its content.

    `specs` describe the reference's tensors; `given` is a weight file's name and its tensors, probe weights otherwise.
    Raises UsageError for images or weights that cannot be used.
    """
    seen = data or not case.alone or any(spec.fill == "photographs" for spec in case.inputs)
    chosen = photographs.read(photographs.in_folder(data) if data else photographs.shipped()) if seen else []
    folder = manifest.start(parent, "plan")
    origin = "probe weights"
    if given:
        origin = f"{Path(given[0]).name} {_hash_of(given[1])}"
    with StoreWriter(folder, "plan") as store:
        _add_weights(store, case, specs, given)
        inputs.add(store, case, chosen)
        if not case.alone:
            _add_losses(store, case)
            _add_mixup(store, case, chosen)
        if case.training:
            _add_training(store, case.training, training_specs, case.seed)
        if "optim" in case.steps:
            for name, values in gradients.optimizer_inputs(training_specs or specs, case.seed):
                store.add(f"optim/{name}", values, "input")
    images = {} if case.alone else _add_images(folder / "images", chosen)
    if not case.alone:
        folders.make(folder / "classes")
    description = {
        "schema": SCHEMA,
        "case": json.loads(json.dumps(asdict(case))),
        "weights": origin,
        "images": images,
        "classes": [*folders.FILES],
        "hashes": {
            **store.hashes,
            **{f: blake3((folder / "images" / f).read_bytes()).hexdigest() for f in images.values()},
        },
    }
    manifest.write_json(folder / "plan.json", description)
    plan = open_plan(folder)
    final = parent / f"plan-{plan.id}"
    if final.exists():
        # The same bytes, unless somebody damaged them since. What is being read keeps the file that it has opened.
        for path in [*folder.rglob("*")]:
            if path.is_file():
                path.replace(final / path.relative_to(folder))
        shutil.rmtree(folder)
    else:
        folder.rename(final)
    return open_plan(final)


def _add_images(folder: Path, chosen: list[photographs.Photograph]) -> dict[str, str]:
    """The image files themselves, in `folder`; {name: file name}."""
    folder.mkdir()
    images = {photograph.name: photograph.name + photograph.path.suffix.lower() for photograph in chosen}
    for photograph in chosen:
        shutil.copyfile(photograph.path, folder / images[photograph.name])
    return images | variants(chosen[0], folder)


def _hash_of(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of names and values, whatever file format they came from."""
    total = blake3()
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _add_weights(
    store: StoreWriter, case: Case, specs: list[Spec], given: tuple[str, Mapping[str, np.ndarray]] | None
) -> None:
    values = given[1] if given else weights.probe(specs, case.seed)
    origin = given[0] if given else "probe weights"
    expected = {spec.name: spec.shape for spec in specs}
    missing, extra = sorted(expected.keys() - values.keys()), sorted(values.keys() - expected.keys())
    wrong = [name for name, shape in expected.items() if name in values and values[name].shape != shape]
    if missing or extra or wrong:
        told = [
            f"{len(names)} {what}, first {names[0]!r}"
            for names, what in ((missing, "missing"), (extra, "unknown"))
            if names
        ]
        if wrong:
            told.append(
                f"{len(wrong)} of another shape, first {wrong[0]!r}: {values[wrong[0]].shape}, not {expected[wrong[0]]}"
            )
        raise UsageError(f"{origin}: not weights of case {case.name}: {'; '.join(told)}. Give weights of this variant")
    for spec in specs:
        store.add(f"weights/{spec.name}", values[spec.name], spec.kind if spec.kind == "buffer" else "parameter")


def _add_losses(store: StoreWriter, case: Case) -> None:
    rng = np.random.default_rng([case.seed, 2])
    batch, classes = 8, case.classes
    for name in ("logits", "logits_kd", "teacher"):
        store.add(f"loss/{name}", (3 * rng.standard_normal((batch, classes))).astype(np.float32), "input")
    target = rng.permutation(classes)[:batch]
    store.add("loss/target", target, "input")
    ignored = target.copy()
    ignored[3] = -100  # both frameworks' default ignore_index
    store.add("loss/target_ignored", ignored, "input")
    soft = rng.dirichlet(np.full(classes, 0.1), batch)
    store.add("loss/soft_target", soft.astype(np.float32), "input")
    # As many samples as classes: what tells labels from probabilities by their shape is misled.
    for name in ("logits", "logits_kd", "teacher"):
        store.add(f"loss/square/{name}", (3 * rng.standard_normal((batch, batch))).astype(np.float32), "input")
    store.add("loss/square/target", rng.permutation(batch), "input")
    store.add("loss/square/soft_target", rng.dirichlet(np.full(batch, 0.1), batch).astype(np.float32), "input")
    # Fifty samples in ragged batches of 16: labels at ranks 0, 1, 4, 5 and last of logits that lie 1/8 apart.
    ladder = np.stack([rng.permutation(classes) for _ in range(50)])
    ranks = np.resize([0, 0, 1, 4, 5, classes - 1, 0], 50)
    store.add("metric/logits", (ladder / 8).astype(np.float32), "input")
    store.add("metric/target", np.argsort(-ladder, axis=1)[np.arange(50), ranks], "input")


def _add_mixup(store: StoreWriter, case: Case, chosen: list[photographs.Photograph]) -> None:
    """A batch that is not square, so that swapped axes show."""
    rng = np.random.default_rng([case.seed, 4])
    store.add("data/mixup/images", photographs.crops(chosen, (4, 3, 40, 56), rng), "input")
    store.add("data/mixup/labels", rng.permutation(case.classes)[:4], "input")


def _add_training(store: StoreWriter, training: Training, specs: list[Spec], seed: int) -> None:
    rng = np.random.default_rng([seed, 3])
    images, labels = digits.digits(training.image_size)
    for split, part in (("train", slice(None, -digits.TEST)), ("test", slice(-digits.TEST, None))):
        store.add(f"train_align/{split}/images", images[part], "input")
        store.add(f"train_align/{split}/labels", labels[part], "input")
    count, needed = len(labels) - digits.TEST, training.iterations * training.accumulation * training.batch
    epochs = np.concatenate([rng.permutation(count) for _ in range(needed // count + 1)])[:needed]
    store.add("train_align/order", epochs.reshape(-1, training.batch), "input")
    for name, values in weights.initial(specs, seed).items():
        store.add(f"train_align/weights/{name}", values, "parameter")
