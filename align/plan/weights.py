"""Weights made in numpy from a seed, by the parameter's role, so that both sides start from the same bytes.

`probe` weights are made to show bugs: non-trivial normalisation scales, large biases and tokens, sharp attention.
`initial` weights are made to train: the reference framework's default ranges.
"""

import math
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from align.sides import Spec

NORMALISATION = ("LayerNorm", "BatchNorm", "GroupNorm", "InstanceNorm", "RMSNorm")
LINEAR = ("Linear", "Conv")


def probe(specs: Sequence[Spec], seed: int) -> dict[str, np.ndarray]:
    """Float32 arrays, name -> values, of each spec's shape in the reference's layout."""
    values = {spec.name: _probe_one(spec, _generator(seed, spec.name)).astype(np.float32) for spec in specs}
    for spec in specs:
        if spec.padding is not None and spec.name.endswith("weight"):
            values[spec.name][spec.padding] = 0.0  # PyTorch keeps zeros there; Paddle gives zeros whatever is there
    return values


def by_shape(specs: Iterable[Spec], seed: int) -> dict[str, np.ndarray]:
    """Float64 arrays that depend on each spec's shape alone: equal ones for all tensors of one shape.

    A projection of several times its width is made of as many equal squares, and a vector repeats itself: a fused
    projection then computes what its parts compute side by side.
    """
    return {spec.name: _of_shape(spec.shape, seed) for spec in specs}


def _of_shape(shape: tuple[int, ...], seed: int) -> np.ndarray:
    if not shape:
        return np.array(1.0)
    period = math.gcd(shape[0], 8) if len(shape) == 1 else shape[0]
    if len(shape) == 2 and shape[0] % shape[1] == 0:
        period = shape[1]
    rng = np.random.default_rng([seed, period, *shape[1:]])
    if len(shape) == 1:  # a variance must be positive, and a scale may not be near zero
        part = rng.uniform(0.5, 1.5, period)
    else:
        part = rng.uniform(-1, 1, (period, *shape[1:])) * math.sqrt(3 / math.prod(shape[1:]))
    return np.concatenate([part] * (shape[0] // period)) if period else np.zeros(shape)


def initial(specs: Iterable[Spec], seed: int) -> dict[str, np.ndarray]:
    """As `torch.nn` initialises: U(+-1/sqrt(fan_in)) for Linear and Conv, ones and zeros for norms, 0.02 for tokens."""
    specs = list(specs)
    fans = {spec.name.rpartition(".")[0]: _fan_in(spec) for spec in specs if spec.name.endswith("weight")}
    values = {}
    for spec in specs:
        owner, _, last = spec.name.rpartition(".")
        rng = _generator(seed, spec.name)
        if spec.owner.startswith(LINEAR):
            bound = 1 / math.sqrt(fans[owner])
            array = rng.uniform(-bound, bound, spec.shape)
        elif any(norm in spec.owner for norm in NORMALISATION):
            array = np.full(spec.shape, float(last in ("weight", "running_var")))
        else:
            array = 0.02 * rng.standard_normal(spec.shape)
        values[spec.name] = array.astype(np.float32)
    return values


def _generator(seed: int, name: str) -> np.random.Generator:
    """One stream a name: adding a parameter does not move the others."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _fan_in(spec: Spec) -> int:
    return math.prod(spec.shape[1:]) or 1


def _probe_one(spec: Spec, rng: np.random.Generator) -> np.ndarray:
    last = spec.name.rpartition(".")[2]
    normal = rng.standard_normal(spec.shape)
    if last == "num_batches_tracked":
        return np.zeros(spec.shape)
    if last == "running_var":
        return rng.uniform(0.5, 1.5, spec.shape)
    if any(norm in spec.owner for norm in NORMALISATION):
        return 1 + 0.3 * normal if last == "weight" else 0.2 * normal
    if len(spec.shape) == 1:
        return 0.2 * normal
    if spec.owner.startswith(LINEAR):
        # A fused projection three times as wide as its input feeds attention: larger queries and keys make it sharp,
        # and a uniform attention would hide wrong scales and axes.
        fused = len(spec.shape) == 2 and spec.shape[0] == 3 * spec.shape[1]
        # Three times the default range, no more: sharper still, and training on these weights becomes chaotic.
        bound = (3.0 if fused else 1.0) / math.sqrt(_fan_in(spec))
        return rng.uniform(-bound, bound, spec.shape)
    return 0.5 * normal
