"""What `optim` updates: parameters and gradients made in numpy, so that no forward and no backward can differ."""

from collections.abc import Iterable, Iterator

import numpy as np

from align.plan import weights
from align.sides import Spec

SETS = 4  # gradients of iterations 0, 1, 2, 3; a longer run goes through them again and again


def optimizer_inputs(specs: Iterable[Spec], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """(`parameter/<name>` or `gradient/<i>/<name>`, float32 array in the reference's layout), without buffers.

    Gradients are normal, each parameter's of a scale of its own between 2**-6 and 1, so that the norm of a group says
    little about the norm of all. Their values are odd multiples of 1/8 of that scale: sums of their squares are exact
    in any order, and how a framework adds up is no part of this step.
    """
    specs = [spec for spec in specs if spec.kind == "parameter"]
    for name, values in weights.probe(specs, seed).items():
        yield f"parameter/{name}", values
    rng = np.random.default_rng([seed, 5])
    scales = {spec.name: 2.0 ** rng.integers(-6, 1) for spec in specs}
    for i in range(SETS):
        for spec in specs:
            values = scales[spec.name] * (np.floor(4 * rng.standard_normal(spec.shape)) + 0.5) / 4
            yield f"gradient/{i}/{spec.name}", values.astype(np.float32)
