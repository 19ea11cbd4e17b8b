"""Top-k accuracy, by timm (timm/utils/metrics.py). Licence: Apache-2.0."""

from collections.abc import Sequence

from timm.utils import accuracy as timm_accuracy
from torch import Tensor

from torch_ref.losses import check_labels


def accuracy(logits: Tensor, target: Tensor, topk: Sequence[int] = (1, 5)) -> list[float]:
    """Fraction in [0, 1] of samples whose label is among the k greatest logits, for each k.

    logits: (N, classes); target: (N,) class indices. A k beyond the number of classes counts all classes.
    """
    check_labels(logits, target)
    samples = len(target)
    if not samples:
        raise ValueError("accuracy of no samples")
    # timm's percentage carries a float32 rounding; the number of hits behind it is whole, so take that.
    hits = (round(float(percent) * samples / 100) for percent in timm_accuracy(logits, target, topk))
    return [hit / samples for hit in hits]
