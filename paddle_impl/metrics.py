"""Top-k accuracy, after timm (timm/utils/metrics.py, Apache-2.0). Licence: Apache-2.0."""

from collections.abc import Sequence

from paddle import Tensor

from paddle_impl.losses import check_labels


def accuracy(logits: Tensor, target: Tensor, topk: Sequence[int] = (1, 5)) -> list[float]:
    """Fraction in [0, 1] of samples whose label is among the k greatest logits, for each k.

    logits: (N, classes); target: (N,) class indices. A k beyond the number of classes counts all classes.
    """
    check_labels(logits, target)
    samples = len(target)
    if not samples:
        raise ValueError("accuracy of no samples")
    most = min(max(topk), logits.shape[1])
    _, predicted = logits.topk(most, axis=1)  # (N, most)
    correct = predicted == target.astype(predicted.dtype).unsqueeze(1)  # (N, most)
    hits = (int(correct[:, :k].sum()) for k in topk)
    return [hit / samples for hit in hits]
