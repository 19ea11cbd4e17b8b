"""Real photographs: those that ship inside two installed packages, or an ImageNet-style folder of the user's."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from align.errors import EnvironmentFault, UsageError

# Colour photographs only; several sizes, square and not.
SHIPPED = {
    "skimage": (
        "data",
        (
            "astronaut.png",
            "chelsea.png",
            "coffee.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "motorcycle_left.png",
            "motorcycle_right.png",
            "retina.jpg",
            "rocket.jpg",
        ),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}
LIMIT = 24  # of a user's folder: enough to meet odd sizes and modes, few enough to stay quick

# ImageNet's channel statistics, as torchvision's and timm's evaluation pipelines use them.
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Photograph:
    """One image file: a short name, where it lies, and its decoded pixels, (height, width, 3) uint8."""

    name: str
    path: Path
    pixels: np.ndarray


def shipped() -> list[Path]:
    """The eleven photographs of scikit-image and scikit-learn, found without importing either."""
    paths = []
    for package, (folder, names) in SHIPPED.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise EnvironmentFault(
                f"package {package!r} brings the test photographs and is not installed; run setup.sh"
            )
        paths += [Path(spec.origin).parent / folder / name for name in names]
    return paths


def in_folder(folder: Path) -> list[Path]:
    """Up to 24 images of an ImageNet-style folder, one of each class in turn."""
    if not folder.is_dir():
        raise UsageError(f"--data {folder}: no such folder; give one with a sub-folder of images for each class")
    classes: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            if not (name := str(path.relative_to(folder))).isprintable():
                raise UsageError(f"--data {folder}: {name!r} is a name that no report can hold; rename the file")
            classes.setdefault(path.parent, []).append(path)
    if not classes:
        raise UsageError(f"--data {folder}: no images in it ({', '.join(sorted(SUFFIXES))}); expected CLASS/IMAGE")
    deepest = max(map(len, classes.values()))
    turns = [paths[turn] for turn in range(deepest) for paths in classes.values() if turn < len(paths)]
    return turns[:LIMIT]


def read(paths: list[Path]) -> list[Photograph]:
    """Decode every file; one that cannot be read stops the run, because a skipped image would go unnoticed."""
    photographs = []
    for index, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UsageError(f"cannot read image {path}: {error}; replace it or take it out of the folder") from None
        photographs.append(Photograph(f"{index:02d}-{path.stem}", path, pixels))
    return photographs


def crops(photographs: list[Photograph], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random crops, resized and normalised: (batch, channels, height, width) float32.

    The last sample is nearly constant: on rows of low variance a wrong epsilon shows.
    """
    batch, channels, height, width = shape
    samples = np.empty(shape, np.float32)
    for index, choice in enumerate(rng.permutation(max(len(photographs), batch))[:batch]):
        image = Image.fromarray(photographs[choice % len(photographs)].pixels)
        scale = rng.uniform(0.5, 1.0) * min(image.width / width, image.height / height)
        crop_width, crop_height = int(width * scale), int(height * scale)
        left = int(rng.integers(0, image.width - crop_width + 1))
        top = int(rng.integers(0, image.height - crop_height + 1))
        box = (left, top, left + crop_width, top + crop_height)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box)) / 255.0
        normal = ((pixels - MEAN) / STD).transpose(2, 0, 1)
        samples[index] = normal if channels == 3 else np.resize(normal, (channels, height, width))
    samples[-1] = 0.3 + samples[-1] * 1e-3
    return samples
