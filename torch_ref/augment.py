"""Training images of the DeiT/PiT recipe: from a decoded photograph to the augmented tensor, and mixup of a batch.

Every part is timm's or torchvision's own, put together by timm's `create_transform` as facebookresearch/deit
`datasets.py` does: random resized crop, flip, RandAugment or colour jitter, normalisation, random erasing. Mixup
(arXiv 1710.09412) and CutMix (arXiv 1905.04899) are timm/data/mixup.py.
Licence: Apache-2.0
"""

from collections.abc import Callable

import timm.data.mixup
import torch
from timm.data import RandomResizedCropAndInterpolation, create_transform
from timm.data.auto_augment import RandAugment
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import ColorJitter, Compose, Normalize, RandomHorizontalFlip

from torch_ref.data import IMAGENET_MEAN, IMAGENET_STD
from torch_ref.rand_augment import with_no_bits

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

STAGES = {
    RandomResizedCropAndInterpolation: "cropped",
    RandomHorizontalFlip: "flipped",
    RandAugment: "augmented",
    ColorJitter: "jittered",
    Normalize: "normalised",
    RandomErasing: "erased",
}


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
    whole = create_transform(
        image_size,
        is_training=True,
        scale=scale,
        ratio=ratio,
        hflip=hflip,
        color_jitter=color_jitter or None,
        auto_augment=auto_augment,
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        re_prob=re_prob,
        re_mode=re_mode,
        re_count=re_count,
    ).transforms
    stages = {STAGES[type(transform)]: transform for transform in whole if type(transform) in STAGES}
    if "augmented" in stages:
        with_no_bits(stages["augmented"])
    to_tensor = next(transform for transform in whole if type(transform) not in STAGES)
    return stages | {"normalised": Compose([to_tensor, stages["normalised"]])}  # (3, H, W)


class Mixup(timm.data.mixup.Mixup):
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
        super().__init__(
            mixup_alpha,
            cutmix_alpha,
            prob=prob,
            switch_prob=switch_prob,
            label_smoothing=label_smoothing,
            num_classes=num_classes,
        )

    def draw(self, shape: tuple[int, ...]) -> tuple[float, tuple[int, int, int, int] | None]:
        """What the next call does with a batch of `shape`: (lambda, box), by the same draws as that call.

        box: (top, bottom, left, right) of CutMix, None for mixup. Lambda is the part that the batch itself keeps; for
        CutMix that of the box's real area, which the border may have cut.
        """
        lam, use_cutmix = self._params_per_batch()
        if not use_cutmix or lam == 1.0:
            return lam, None
        box, lam = cutmix_bbox_and_lam(shape, lam, correct_lam=self.correct_lam)
        return float(lam), tuple(int(edge) for edge in box)

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """images (N, C, H, W), N even, and labels (N,) -> mixed images and soft targets (N, classes), default dtype.

        `images` may be changed in place: use what is returned. `target` stays as it is. Raises ValueError for an odd
        batch and for a label outside the classes.
        """
        if len(images) % 2:
            raise ValueError(f"mixup needs an even batch, not {len(images)} images; drop the last one of an epoch")
        _check_labels(target, self.num_classes)
        return super().__call__(images, target)


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


def _check_labels(target: Tensor, num_classes: int) -> None:
    """Raise ValueError unless `target` holds class indices of shape (N,)."""
    if target.ndim != 1:
        raise ValueError(f"labels must have shape (N,), not {tuple(target.shape)}")
    outside = torch.nonzero((target < 0) | (target >= num_classes))
    if len(outside):
        index = int(outside[0, 0])
        raise ValueError(f"label {int(target[index])} at index {index} is outside the classes 0..{num_classes - 1}")
