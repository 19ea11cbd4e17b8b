"""Losses of the DeiT/PiT recipe: cross entropy with hard, smoothed and soft labels, and DeiT's distillation.

Soft-target and label-smoothing cross entropy follow timm/loss/cross_entropy.py (Apache-2.0); `DistillationLoss` follows
"Training data-efficient image transformers & distillation through attention" (arXiv 2012.12877, section 4) and
facebookresearch/deit `losses.py` (Apache-2.0). Every loss is a tensor without axes, of the logits' dtype.
Licence: Apache-2.0.
"""

from collections.abc import Callable

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

__all__ = [
    "DistillationLoss",
    "LabelSmoothingCrossEntropy",
    "SoftTargetCrossEntropy",
    "check_labels",
    "cross_entropy",
]


def check_labels(logits: Tensor, target: Tensor, ignore_index: int | None = None) -> None:
    """Raise ValueError unless `target` (N,) holds class indices of `logits` (N, classes), or `ignore_index`.

    The shape is checked because labels of shape (N, 1) would broadcast to (N, N) in a comparison, silently.
    """
    if logits.ndim != 2 or tuple(target.shape) != (logits.shape[0],):
        raise ValueError(
            f"logits must have shape (N, classes) and labels (N,), not {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    outside = (target < 0) | (target >= logits.shape[1])
    if ignore_index is not None:
        outside &= target != ignore_index
    if outside.any():
        index = int(outside.nonzero()[0, 0])
        raise ValueError(f"label {int(target[index])} at index {index} is outside the classes 0..{logits.shape[1] - 1}")


def cross_entropy(logits: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """Mean cross entropy of `logits` (N, classes) with class indices `target` (N,).

    The mean is over the labels that are not `ignore_index`; NaN if all are ignored, as in `torch.nn.functional`.
    """
    check_labels(logits, target, ignore_index)
    # paddle: with a negative ignore_index its mean divides by all labels, ignored ones too, and gives 0 where nothing
    # is left; so the mean is taken here.
    total = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="sum")
    return total / (target != ignore_index).sum().astype(logits.dtype)


class SoftTargetCrossEntropy(nn.Layer):
    """Mean cross entropy with a distribution over the classes as target (timm/loss/cross_entropy.py)."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """x: logits (N, classes); target: (N, classes), rows sum to 1."""
        return (-target * F.log_softmax(x, axis=-1)).sum(axis=-1).mean()


class LabelSmoothingCrossEntropy(nn.Layer):
    """timm's label smoothing (timm/loss/cross_entropy.py): 1 - s on the label, plus s / classes on every class.

    logits (N, classes), target (N,) class indices.
    """

    # paddle: F.cross_entropy has label_smoothing too, but keeps the smoothing in float32 (3.5e-8 off in float64 runs).

    def __init__(self, smoothing: float = 0.1):
        super().__init__()
        if not smoothing < 1.0:
            raise ValueError(f"smoothing {smoothing}: must be below 1")
        self.smoothing = smoothing
        self.confidence = 1.0 - smoothing

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        check_labels(x, target)
        log_probabilities = F.log_softmax(x, axis=-1)
        label_loss = -log_probabilities.take_along_axis(target.unsqueeze(1), axis=1).squeeze(1)  # (N,)
        smooth_loss = -log_probabilities.mean(axis=-1)  # (N,)
        return (self.confidence * label_loss + self.smoothing * smooth_loss).mean()


class DistillationLoss(nn.Layer):
    """A base loss on the class token's logits and a distillation loss on the distillation token's.

    base_criterion: (logits, labels) -> loss.
    teacher: any callable, inputs -> logits (N, classes); called without gradient. Its mode is the caller's business.
    distillation_type: "none"; "soft" (KL divergence at temperature `tau`, equation 2); "hard" (cross entropy with the
        teacher's decision, equation 3).
    alpha: weight of the distillation loss; the base loss has 1 - alpha.
    """

    def __init__(
        self,
        base_criterion: Callable[[Tensor, Tensor], Tensor],
        teacher: Callable[[Tensor], Tensor] | None,
        distillation_type: str,
        alpha: float,
        tau: float,
    ):
        super().__init__()
        if distillation_type not in ("none", "soft", "hard"):
            raise ValueError(f"distillation type {distillation_type!r}: choose none, soft or hard")
        if distillation_type != "none" and teacher is None:
            raise ValueError(f"{distillation_type} distillation needs a teacher")
        self.base_criterion = base_criterion
        self.teacher = teacher
        self.distillation_type = distillation_type
        self.alpha = alpha
        self.tau = tau

    def forward(self, inputs: Tensor, outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
        """inputs: what the teacher sees; outputs: logits, or (class logits, distillation logits), each (N, classes)."""
        outputs_kd = None
        if not isinstance(outputs, Tensor):
            outputs, outputs_kd = outputs
        base_loss = self.base_criterion(outputs, labels)
        if self.distillation_type == "none":
            return base_loss
        if outputs_kd is None:
            raise ValueError(
                f"{self.distillation_type} distillation needs a pair (class logits, distillation logits); the model "
                "gave one tensor: use a *_distilled model in training mode"
            )
        with paddle.no_grad():
            teacher_outputs = self.teacher(inputs)
        if self.distillation_type == "soft":
            distillation_loss = (
                F.kl_div(
                    F.log_softmax(outputs_kd / self.tau, axis=1),
                    F.log_softmax(teacher_outputs / self.tau, axis=1),
                    reduction="sum",
                    log_target=True,
                )
                * (self.tau * self.tau)
                / outputs_kd.size  # deit divides by N * classes, not by N
            )
        else:
            distillation_loss = cross_entropy(outputs_kd, teacher_outputs.argmax(axis=1))
        return base_loss * (1 - self.alpha) + distillation_loss * self.alpha
