"""Training images of the DeiT/PiT recipe: from a decoded photograph to the augmented tensor, and mixup of a batch.

As facebookresearch/deit `datasets.py` puts them together: random resized crop, flip, RandAugment or colour jitter,
normalisation, random erasing. The algorithms are those of timm/data/transforms.py, random_erasing.py and mixup.py
(Apache-2.0) and of torchvision/transforms (BSD-3-Clause), in words of their own, with the same draws in the same order:
from Python's `random` and `numpy.random` where those draw from them, from Paddle's generator where they draw from
PyTorch's. Mixup: arXiv 1710.09412; CutMix: arXiv 1905.04899; random erasing: arXiv 1708.04896.
Licence: Apache-2.0
"""

import math
import random
from collections.abc import Callable

import numpy as np
import paddle
from paddle import Tensor
from paddle.vision.transforms import Compose, Normalize
from PIL import Image, ImageEnhance

from paddle_impl.data import IMAGENET_MEAN, IMAGENET_STD, to_tensor
from paddle_impl.rand_augment import rand_augment_transform

__all__ = [
    "RAND_AUGMENT",
    "ColorJitter",
    "Mixup",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCropAndInterpolation",
    "build_mixup",
    "cutmix_bbox_and_lam",
    "mixup_target",
    "train_transform",
    "train_transforms",
]

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"  # two operations of magnitude 9 of 10, standard deviation 0.5


def train_transform(image_size: int | tuple[int, int] = 224, **recipe) -> Callable:
    """The training transform: Pillow RGB image -> augmented tensor (3, H, W) of the default dtype.

    `image_size`: int or (height, width). `recipe`: as `train_transforms`.
    """
    return Compose(list(train_transforms(image_size, **recipe).values()))


def train_transforms(
    image_size: int | tuple[int, int] = 224,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    hflip: float = 0.5,
    color_jitter: float | None = 0.3,
    auto_augment: str | None = RAND_AUGMENT,
    re_prob: float = 0.25,
    re_mode: str = "pixel",
    re_count: int = 1,
) -> dict[str, Callable]:
    """Stage name -> transform, in order: `cropped`, `flipped`, `augmented` or `jittered`, `normalised`, `erased`.

    The stages up to the third take and give Pillow RGB images, `normalised` gives a tensor (3, H, W) of the default
    dtype, `erased` changes it in place and gives it back. What is switched off (0 or None) is no stage. `scale` and
    `ratio`: of the crop's area to the image's, and of its width to its height; bicubic. `color_jitter`: of brightness,
    contrast and saturation, only without `auto_augment`, as in timm. `re_*`: random erasing.

    Raises ValueError if `auto_augment` is not a configuration of RandAugment.
    """
    if auto_augment and not auto_augment.startswith("rand-"):
        raise ValueError(f"auto_augment {auto_augment!r} is no RandAugment configuration such as {RAND_AUGMENT!r}")
    stages: dict[str, Callable] = {"cropped": RandomResizedCropAndInterpolation(image_size, scale, ratio, "bicubic")}
    if hflip:
        stages["flipped"] = RandomHorizontalFlip(hflip)
    if auto_augment:
        fill = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
        hparams = {"img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
        stages["augmented"] = rand_augment_transform(auto_augment, hparams)
    elif color_jitter:
        stages["jittered"] = ColorJitter(color_jitter, color_jitter, color_jitter)
    stages["normalised"] = Compose([to_tensor, Normalize(IMAGENET_MEAN, IMAGENET_STD)])  # (3, H, W)
    if re_prob:
        stages["erased"] = RandomErasing(re_prob, mode=re_mode, max_count=re_count)
    return stages


class RandomResizedCropAndInterpolation:
    """A box of random area and aspect ratio, resized to `size`: an int or (height, width)."""

    def __init__(self, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation: str = "bilinear"):
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.scale, self.ratio = scale, ratio
        self.interpolation = Image.Resampling[interpolation.upper()]

    @staticmethod
    def get_params(image: Image.Image, scale, ratio) -> tuple[int, int, int, int]:
        """A box (top, left, height, width) inside the image.

        Ten tries at random; an image too long for `ratio` may need the last resort, the greatest box in its middle.
        """
        width, height = image.size
        for _ in range(10):
            area = random.uniform(*scale) * (width * height)
            aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
            box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if box_width <= width and box_height <= height:
                top = random.randint(0, height - box_height)
                return top, random.randint(0, width - box_width), box_height, box_width
        box_width, box_height = width, height
        if width / height < min(ratio):
            box_height = round(width / min(ratio))
        elif width / height > max(ratio):
            box_width = round(height * max(ratio))
        return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width

    def __call__(self, image: Image.Image) -> Image.Image:
        top, left, height, width = self.get_params(image, self.scale, self.ratio)
        return image.crop((left, top, left + width, top + height)).resize(self.size[::-1], self.interpolation)


class RandomHorizontalFlip:
    """Left becomes right, with probability `p`."""

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if paddle.rand([1]) < self.p else image


class ColorJitter:
    """Brightness, contrast and saturation, in random order, each by a factor uniform in [1 - value, 1 + value]."""

    def __init__(self, brightness: float = 0, contrast: float = 0, saturation: float = 0):
        self.spreads = (brightness, contrast, saturation)

    def __call__(self, image: Image.Image) -> Image.Image:
        order = paddle.randperm(4).tolist()  # of four: torchvision's last is the hue, which the recipe leaves alone
        factors = [self._factor(spread) if spread else None for spread in self.spreads]
        for index in order:
            if index < len(factors) and factors[index] is not None:
                image = ENHANCERS[index](image).enhance(factors[index])
        return image

    def _factor(self, spread):
        return paddle.uniform([1], min=max(0.0, 1 - spread), max=1 + spread).item()


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class RandomErasing:
    """With `probability`, fill boxes of a normalised image (C, H, W) with noise, in place; gives the image back.

    mode: "pixel" for a standard-normal number a pixel, "rand" for one a channel, "const" for zero. The number of boxes
    is between `min_count` and `max_count`, their common area between `min_area` and `max_area` of the image's.
    """

    def __init__(
        self,
        probability: float = 0.5,
        min_area: float = 0.02,
        max_area: float = 1 / 3,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
        mode: str = "const",
        min_count: int = 1,
        max_count: int | None = None,
    ):
        if mode not in ("pixel", "rand", "const"):
            raise ValueError(f"random erasing has no mode {mode!r}: choose pixel, rand or const")
        self.probability, self.mode = probability, mode
        self.area = min_area, max_area
        self.log_aspect = math.log(min_aspect), math.log(max_aspect or 1 / min_aspect)
        self.counts = min_count, max_count or min_count

    def __call__(self, image: Tensor) -> Tensor:
        if random.random() > self.probability:
            return image
        channels, height, width = image.shape
        count = self.counts[0] if self.counts[0] == self.counts[1] else random.randint(*self.counts)
        for _ in range(count):
            for _ in range(10):  # tries
                area = random.uniform(*self.area) * (height * width) / count
                aspect = math.exp(random.uniform(*self.log_aspect))
                box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if box_width < width and box_height < height:
                    top = random.randint(0, height - box_height)
                    left = random.randint(0, width - box_width)
                    noise = self._noise((channels, box_height, box_width), image.dtype)
                    image[:, top : top + box_height, left : left + box_width] = noise
                    break
        return image

    def _noise(self, shape, dtype):
        if self.mode == "pixel":
            return paddle.randn(shape, dtype=dtype)  # (C, h, w)
        shape = (shape[0], 1, 1)
        return paddle.randn(shape, dtype=dtype) if self.mode == "rand" else paddle.zeros(shape, dtype=dtype)


class Mixup:
    """Mixes each batch with its reverse: the whole (mixup) or a box of it (CutMix), with one lambda a batch.

    timm's class in its mode `batch`. `prob`: of mixing a batch at all; `switch_prob`: of CutMix, if both are active.
    """

    def __init__(
        self,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
    ):
        if mixup_alpha <= 0 and cutmix_alpha <= 0:
            raise ValueError(f"nothing to mix with: mixup_alpha {mixup_alpha}, cutmix_alpha {cutmix_alpha}")
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.prob, self.switch_prob = prob, switch_prob
        self.label_smoothing, self.num_classes = label_smoothing, num_classes

    def draw(self, shape: tuple[int, ...]) -> tuple[float, tuple[int, int, int, int] | None]:
        """What the next call does with a batch of `shape`: (lambda, box), by the same draws as that call.

        box: (top, bottom, left, right) of CutMix, None for mixup. Lambda is the part that the batch itself keeps; for
        CutMix that of the box's real area, which the border may have cut.
        """
        if np.random.rand() >= self.prob:
            return 1.0, None
        use_cutmix = self.mixup_alpha <= 0
        if self.mixup_alpha > 0 and self.cutmix_alpha > 0:
            use_cutmix = np.random.rand() < self.switch_prob
        alpha = self.cutmix_alpha if use_cutmix else self.mixup_alpha
        lam = float(np.random.beta(alpha, alpha))
        if not use_cutmix or lam == 1.0:
            return lam, None
        box, lam = cutmix_bbox_and_lam(shape, lam)
        return lam, box

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """images (N, C, H, W), N even, and labels (N,) -> mixed images and soft targets (N, classes), default dtype.

        `images` may be changed in place: use what is returned. `target` stays as it is. Raises ValueError for an odd
        batch and for a label outside the classes.
        """
        if len(images) % 2:
            raise ValueError(f"mixup needs an even batch, not {len(images)} images; drop the last one of an epoch")
        _check_labels(target, self.num_classes)
        lam, box = self.draw(images.shape)
        if box is not None:
            top, bottom, left, right = box
            if top < bottom and left < right:  # paddle: assigning to an empty slice is an error
                images[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
        elif lam != 1.0:
            images = images * lam + images.flip(0) * (1 - lam)
        return images, mixup_target(target, self.num_classes, lam, self.label_smoothing)


def build_mixup(
    num_classes: int,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    prob: float = 1.0,
    switch_prob: float = 0.5,
    smoothing: float = 0.1,
) -> Mixup | None:
    """The recipe's `Mixup`; None if neither `mixup` nor `cutmix` is positive: then train on plain labels."""
    if mixup <= 0 and cutmix <= 0:
        return None
    return Mixup(mixup, cutmix, prob, switch_prob, smoothing, num_classes)


def cutmix_bbox_and_lam(shape: tuple[int, ...], lam: float) -> tuple[tuple[int, int, int, int], float]:
    """A box (top, bottom, left, right) in images of `shape` (..., H, W), and the part outside it.

    The box has the image's aspect ratio, 1 - lam of its area, and its centre anywhere: the border may cut it, so that
    the part outside is reckoned anew.
    """
    height, width = shape[-2:]
    side = np.sqrt(1 - lam)
    box_height, box_width = int(height * side), int(width * side)
    y, x = np.random.randint(0, height), np.random.randint(0, width)  # of the centre, in this order
    top, bottom = max(y - box_height // 2, 0), min(y + (box_height + 1) // 2, height)
    left, right = max(x - box_width // 2, 0), min(x + (box_width + 1) // 2, width)
    return (top, bottom, left, right), 1.0 - (bottom - top) * (right - left) / (height * width)


def mixup_target(target: Tensor, num_classes: int, lam: float = 1.0, smoothing: float = 0.0) -> Tensor:
    """Soft targets (N, num_classes) of labels (N,): lam of the label's, the rest of its mirror image's in the batch.

    Smoothing spreads over all classes, the label's own included.
    """
    off = smoothing / num_classes
    own = target.unsqueeze(1) == paddle.arange(num_classes, dtype=target.dtype)  # (N, num_classes)
    soft = paddle.where(own, paddle.full([], 1.0 - smoothing + off), paddle.full([], off))
    return soft * lam + soft.flip(0) * (1.0 - lam)


def _check_labels(target, num_classes):
    """Raise ValueError unless `target` holds class indices of shape (N,)."""
    if target.ndim != 1:
        raise ValueError(f"labels must have shape (N,), not {tuple(target.shape)}")
    outside = ((target < 0) | (target >= num_classes)).nonzero()
    if len(outside):
        index = int(outside[0, 0])
        raise ValueError(f"label {int(target[index])} at index {index} is outside the classes 0..{num_classes - 1}")
