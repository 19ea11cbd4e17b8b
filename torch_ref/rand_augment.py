"""RandAugment (arXiv 1909.13719) by timm: two operations an image, at random, at magnitudes that vary a little.

Origin: timm/data/auto_augment.py (Apache-2.0), used as it is but for one bound. The recipe's configuration is
`rand-m9-mstd0.5-inc1`.
Licence: Apache-2.0
"""

from PIL import Image
from timm.data import auto_augment
from timm.data.auto_augment import AugmentOp, RandAugment

__all__ = ["AugmentOp", "RandAugment", "rand_augment_transform"]


def rand_augment_transform(config_str: str, hparams: dict | None = None) -> RandAugment:
    """From a configuration such as `rand-m9-mstd0.5-inc1`, its parts in any order after the first.

    m: magnitude; n: operations an image; p: probability of each; mstd: standard deviation of the magnitude (over 100:
    uniform from 0); mmax: greatest magnitude; inc: 1 for operations that only grow stronger with the magnitude.
    """
    return with_no_bits(auto_augment.rand_augment_transform(config_str, hparams))


def with_no_bits(transform: RandAugment) -> RandAugment:
    """The transform, able to posterize to no bit at all, which makes an image black.

    At magnitude 10 timm asks for that, and `rand-m9-mstd0.5` reaches it now and then. Pillow 13 refuses it, where
    earlier versions gave black.
    """
    for op in transform.ops:
        if op.aug_fn is auto_augment.posterize:
            op.aug_fn = _posterize
    return transform


def _posterize(image, bits_to_keep, **_):
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits_to_keep)
