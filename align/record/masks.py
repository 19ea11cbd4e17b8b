"""What a module that drops does of its own accord, with the framework's own generator: rate, scale and structure."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# How often a right module may be called wrong, in one comparison of rates.
FALSE_ALARM = 1e-9
SAMPLES = (1024, 1 << 16)  # at least and at most
WIDTH = 4  # size of every axis but the first
EXACT = 2.0**-21  # a kept value is 1 / keep in float32: Paddle's kernels hold rates so


@dataclass(frozen=True)
class Dropping:
    """What was found: `varies` says of each axis whether the mask differs along it (one draw a sample: the first only).

    `rate` and `scale` are whether the kept fraction fits `keep`, and whether what is kept was divided by it.
    """

    rate: bool
    scale: bool
    varies: tuple[bool, ...]


def samples(keep: float | None) -> int:
    """So many samples that all of them are kept with a probability below `FALSE_ALARM`, within bounds."""
    if keep is None:
        return SAMPLES[1]
    needed = math.log(FALSE_ALARM) / math.log(keep) if 0 < keep < 1 else 0
    return int(min(max(needed, SAMPLES[0]), SAMPLES[1]))


def dropping(module: Callable[[np.ndarray], np.ndarray], axes: int, keep: float | None) -> Dropping:
    """Run a module that should keep with probability `keep` on ones of so many axes, samples first.

    Of a module that compares uniform numbers with a rate of its own, `keep` is None: it is then what the scale says.
    """
    output = module(np.ones((samples(keep), *[WIDTH] * (axes - 1))))
    kept = output != 0
    if keep is None:
        keep = float(min(1 / output.max(), 1.0)) if output.max() > 0 else 0.0
    varies = tuple(bool((kept != kept.take([0], axis)).any()) for axis in range(axes))
    # One element of each independent draw.
    draws = kept[tuple(slice(None) if varying else 0 for varying in varies)]
    scale = bool(np.all(np.abs(output[kept] * keep - 1) <= EXACT))
    return Dropping(plausible(int(draws.sum()), draws.size, keep), scale, varies)


def plausible(kept: int, draws: int, keep: float) -> bool:
    """Whether so many kept of so many independent draws fit the probability `keep`.

    The probability of a fraction f or one still further off, on that side, is at most exp(-draws * KL(f || keep))
    (Chernoff 1952; Hoeffding 1963, theorem 1), so a right one fails at most once in 1 / `FALSE_ALARM`.
    """
    fraction = kept / draws
    terms = ((fraction, keep), (1 - fraction, 1 - keep))
    divergence = sum(found * math.log(found / right) if right else math.inf for found, right in terms if found)
    return draws * divergence <= math.log(2 / FALSE_ALARM)
