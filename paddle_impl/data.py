"""Evaluation images: an ImageNet-style folder, and the transforms that lead from a file to the network's input.

Protocol: timm's PiT configuration (crop fraction 0.9, bicubic: shorter side to 248, centre crop of 224) with the
ImageNet mean and standard deviation, by paddle.vision on Pillow images, as facebookresearch/deit `datasets.py` does.
Licence: Apache-2.0.
"""

import os
from pathlib import Path

import numpy as np
import paddle
from paddle.vision import transforms
from PIL import Image

# Per channel (red, green, blue) for pixels in [0, 1]; timm/data/constants.py.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The list of torchvision/datasets/folder.py.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def list_images(root: str | os.PathLike) -> list[tuple[Path, int]]:
    """The images below `root`, sorted, each with its class index.

    As torchvision's `ImageFolder`: every sub-folder is a class, classes are numbered in the order of their sorted
    names, and a class holds all images at any depth below it; letter case of the extension does not matter. Two
    additions: hidden entries (leading dot) are skipped, because a stray one would shift every class index, and a folder
    that holds images directly, without class folders, gives them the index -1 (no label).

    Raises ValueError if `root` is no folder, holds no image, mixes images with class folders, or has an empty class.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"no such image folder: {root}; name a folder with one sub-folder of images a class")
    entries = sorted((entry for entry in root.iterdir() if not entry.name.startswith(".")), key=lambda e: e.name)
    loose = [entry for entry in entries if _is_image(entry)]
    classes = {entry: _images_below(entry) for entry in entries if entry.is_dir()}
    if not loose and not any(classes.values()):
        raise ValueError(f"no images in {root} (looked for {' '.join(IMAGE_EXTENSIONS)}, in sub-folders too)")
    if not any(classes.values()):
        return [(image, -1) for image in loose]
    if loose:
        raise ValueError(
            f"{root} mixes class folders with {len(loose)} image(s) of no class, such as {loose[0].name}; "
            "move these into a class folder or away"
        )
    empty = [folder for folder, images in classes.items() if not images]
    if empty:
        raise ValueError(f"class folder {empty[0]} has no images; add some or remove the folder")
    return [(image, index) for index, images in enumerate(classes.values()) for image in images]


def load_image(path: str | os.PathLike) -> Image.Image:
    """Decode one file to an RGB Pillow image.

    As torchvision's `pil_loader`: EXIF orientation is not applied, alpha is dropped. Raises ValueError naming the
    file if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise anything from OSError to struct.error on a damaged file
        raise ValueError(f"cannot read image {os.fspath(path)}: {error}; remove or replace it") from error


def eval_transform(image_size: int | tuple[int, int] = 224, resize: int = 248) -> transforms.Compose:
    """The evaluation transform: Pillow RGB image -> normalised tensor (3, H, W) of the default dtype.

    `resize`: length in pixels of the shorter side before the centre crop of `image_size` (int or (height, width)).
    """
    return transforms.Compose(list(_stage_transforms(image_size, resize).values()))


def eval_stages(
    path: str | os.PathLike, image_size: int | tuple[int, int] = 224, resize: int = 248
) -> dict[str, np.ndarray | paddle.Tensor]:
    """What one file looks like after each stage of `eval_transform`, in order.

    `decoded`, `resized`, `cropped`: uint8 arrays (H, W, 3); `normalised`: tensor (3, H, W) of the default dtype.
    """
    value = load_image(path)
    stages = {"decoded": np.asarray(value)}
    for name, transform in _stage_transforms(image_size, resize).items():
        value = transform(value)
        stages[name] = value if isinstance(value, paddle.Tensor) else np.asarray(value)
    return stages


def _stage_transforms(image_size, resize):
    """Stage name -> transform; the one place that says what evaluation does, so that stages and composition agree."""
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if resize < max(size):
        raise ValueError(f"a shorter side of {resize} px is too small for a crop of {size[0]} x {size[1]} px")
    return {
        "resized": transforms.Resize(resize, interpolation="bicubic"),
        "cropped": transforms.CenterCrop(size),
        "normalised": transforms.Compose(
            [to_tensor, transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]  # (3, H, W)
        ),
    }


def to_tensor(image):
    """RGB image -> tensor (3, H, W) of the default dtype in [0, 1]."""
    # paddle: its own ToTensor always gives float32; torchvision's gives the default dtype, which float64 runs need.
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))  # (3, H, W)
    return paddle.to_tensor(pixels).astype(paddle.get_default_dtype()) / 255


def _is_image(path):
    return path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file()


def _images_below(folder):
    """All images at any depth below `folder`, in `ImageFolder`'s order: by folder, then by name within the folder."""

    def fail(error):  # os.walk skips unreadable folders in silence
        raise ValueError(f"cannot list {error.filename}: {error.strerror}") from error

    walk = sorted(os.walk(folder, followlinks=True, onerror=fail))
    files = (Path(parent, name) for parent, _, names in walk for name in sorted(names) if not name.startswith("."))
    return [file for file in files if _is_image(file)]
