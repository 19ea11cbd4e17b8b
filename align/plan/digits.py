"""scikit-learn's 1,797 handwritten digits (UCI optical recognition of handwritten digits): small, real, labelled."""

import importlib.util
from pathlib import Path

import numpy as np

from align.errors import EnvironmentFault

TEST = 297  # the last ones are held out


def digits(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 1, size, size) float32 in about [-1, 1], nearest-neighbour enlarged from 8 x 8; labels int64."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise EnvironmentFault("package 'sklearn' brings the digits that train_align learns from; run setup.sh")
    table = np.loadtxt(Path(spec.origin).parent / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.float32)
    images = table[:, :-1].reshape(-1, 1, 8, 8) / 8 - 1
    factor = size // 8
    return images.repeat(factor, axis=2).repeat(factor, axis=3), table[:, -1].astype(np.int64)
