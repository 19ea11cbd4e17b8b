"""RandAugment (arXiv 1909.13719) as timm has it: two operations an image, at random, at magnitudes that vary a little.

After timm/data/auto_augment.py (Apache-2.0), in words of its own: the same operations, levels and draws, in the same
order, from Python's `random` and from `numpy.random`. The recipe's configuration is `rand-m9-mstd0.5-inc1`.
Licence: Apache-2.0
"""

import random
import re

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

__all__ = ["AugmentOp", "RandAugment", "rand_augment_transform"]

GREATEST = 10.0  # the magnitude that stands for an operation's full strength
FILL = (128, 128, 128)  # of what an operation moves in from outside, unless `hparams` say `img_mean`


def _signed(value):
    """The value or its negative, with equal chance."""
    return -value if random.random() > 0.5 else value


def _towards_extreme(level):
    """A factor of 1 changes nothing; a higher level is further from 1, to either side."""
    return max(0.1, 1.0 + _signed(level * 0.9))


def _threshold(level):
    return min(256, int(level * 256))


def _affine(matrix):
    """An operation that shears or shifts: `matrix(size, argument)` gives the six numbers that Pillow wants."""

    def apply(image, argument, **border):
        return image.transform(image.size, Image.Transform.AFFINE, matrix(image.size, argument), **border)

    return apply


def _rotate(image, degrees, **border):
    return image.rotate(degrees, **border)


def _solarize_add(image, add, **_):
    """Pixels below 128 become lighter by `add`."""
    table = [min(255, value + add) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


def _posterize(image, bits, **_):
    """Keep the `bits` highest bits of each pixel; none of them makes the image black."""
    return image.point([value & (256 - 2 ** (8 - bits)) for value in range(256)] * 3)


def _enhanced(enhancer):
    return lambda image, factor, **_: enhancer(image).enhance(factor)


def _plain(operation):
    return lambda image, **_: operation(image)


_shear_x = _affine(lambda size, factor: (1, factor, 0, 0, 1, 0))
_shear_y = _affine(lambda size, factor: (1, 0, 0, factor, 1, 0))
_translate_x = _affine(lambda size, part: (1, 0, part * size[0], 0, 1, 0))
_translate_y = _affine(lambda size, part: (1, 0, 0, 0, 1, part * size[1]))
_solarize = lambda image, threshold, **_: ImageOps.solarize(image, threshold)  # noqa: E731
_color, _contrast, _brightness, _sharpness = map(
    _enhanced, (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness)
)

# Name -> (operation, its argument from a level in [0, 1]); None where there is nothing to choose.
OPERATIONS = {
    "AutoContrast": (_plain(ImageOps.autocontrast), None),
    "Equalize": (_plain(ImageOps.equalize), None),
    "Invert": (_plain(ImageOps.invert), None),
    "Rotate": (_rotate, lambda level: _signed(level * 30.0)),
    "Posterize": (_posterize, lambda level: int(level * 4)),
    "PosterizeIncreasing": (_posterize, lambda level: 4 - int(level * 4)),
    "Solarize": (_solarize, _threshold),
    "SolarizeIncreasing": (_solarize, lambda level: 256 - _threshold(level)),
    "SolarizeAdd": (_solarize_add, lambda level: min(128, int(level * 110))),
    "Color": (_color, lambda level: level * 1.8 + 0.1),
    "ColorIncreasing": (_color, _towards_extreme),
    "Contrast": (_contrast, lambda level: level * 1.8 + 0.1),
    "ContrastIncreasing": (_contrast, _towards_extreme),
    "Brightness": (_brightness, lambda level: level * 1.8 + 0.1),
    "BrightnessIncreasing": (_brightness, _towards_extreme),
    "Sharpness": (_sharpness, lambda level: level * 1.8 + 0.1),
    "SharpnessIncreasing": (_sharpness, _towards_extreme),
    "ShearX": (_shear_x, lambda level: _signed(level * 0.3)),
    "ShearY": (_shear_y, lambda level: _signed(level * 0.3)),
    "TranslateXRel": (_translate_x, lambda level: _signed(level * 0.45)),
    "TranslateYRel": (_translate_y, lambda level: _signed(level * 0.45)),
}
# The order matters: an operation is chosen by its number. `inc1` takes the increasing form of those that have one.
CHOICES = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast"),
    *("Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)


class AugmentOp:
    """One operation, applied with probability `prob`, at a magnitude in [0, 10] drawn around `magnitude`.

    `hparams`: `img_mean`, the colour of what comes in from outside; `interpolation`, Pillow's number of the filter;
    `magnitude_std`, the standard deviation of the magnitude (infinity: uniform from 0); `magnitude_max` for 10.
    """

    def __init__(self, name: str, prob: float = 0.5, magnitude: float = 10, hparams: dict | None = None):
        hparams = hparams or {}
        self.name, self.prob, self.magnitude = name, prob, magnitude
        self.operation, self.argument = OPERATIONS[name]
        self.magnitude_std = hparams.get("magnitude_std", 0)
        self.magnitude_max = hparams.get("magnitude_max") or GREATEST
        self.filter = hparams.get("interpolation", (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC))
        self.fill = hparams.get("img_mean", FILL)

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.prob < 1.0 and random.random() > self.prob:
            return image
        magnitude = self.magnitude
        if self.magnitude_std == float("inf"):
            magnitude = random.uniform(0, magnitude)
        elif self.magnitude_std > 0:
            magnitude = random.gauss(magnitude, self.magnitude_std)
        level = max(0.0, min(magnitude, self.magnitude_max)) / GREATEST
        arguments = () if self.argument is None else (self.argument(level),)
        if self.operation not in GEOMETRIC:
            return self.operation(image, *arguments)
        chosen = random.choice(self.filter) if isinstance(self.filter, tuple | list) else self.filter
        return self.operation(image, *arguments, resample=chosen, fillcolor=self.fill)


GEOMETRIC = (_rotate, _shear_x, _shear_y, _translate_x, _translate_y)  # these alone look beyond the border


class RandAugment:
    """`num_layers` of the operations, drawn with replacement, one after the other."""

    def __init__(self, ops: list[AugmentOp], num_layers: int = 2):
        self.ops = ops
        self.num_layers = num_layers

    def __call__(self, image: Image.Image) -> Image.Image:
        for index in np.random.choice(len(self.ops), self.num_layers):
            image = self.ops[index](image)
        return image


def rand_augment_transform(config_str: str, hparams: dict | None = None) -> RandAugment:
    """From a configuration such as `rand-m9-mstd0.5-inc1`, its parts in any order after the first.

    m: magnitude; n: operations an image; p: probability of each; mstd: standard deviation of the magnitude (over 100:
    uniform from 0); mmax: greatest magnitude; inc: 1 for operations that only grow stronger with the magnitude. Raises
    ValueError for any other part.
    """
    kind, *parts = config_str.split("-")
    given = {}
    for part in parts:
        match = re.fullmatch(r"(m|n|p|mstd|mmax|inc)(\d+(?:\.\d+)?|inf)", part)
        if kind != "rand" or match is None:
            raise ValueError(
                f"{config_str!r}: {part!r} is no part of a RandAugment configuration (m n p mstd mmax inc)"
            )
        given[match[1]] = float(match[2])
    hparams = dict(hparams or {})
    if "mstd" in given:
        hparams.setdefault("magnitude_std", float("inf") if given["mstd"] > 100 else given["mstd"])
    if "mmax" in given:
        hparams.setdefault("magnitude_max", int(given["mmax"]))
    names = list(CHOICES)
    if given.get("inc"):
        names = [name + "Increasing" if name + "Increasing" in OPERATIONS else name for name in names]
    ops = [AugmentOp(name, given.get("p", 0.5), int(given.get("m", GREATEST)), hparams) for name in names]
    return RandAugment(ops, int(given.get("n", 2)))
