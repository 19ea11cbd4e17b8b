"""One training step, evaluation, and the loop around them: the DeiT/PiT recipe (facebookresearch/deit `engine.py`).

`python -m torch_ref.train` trains and evaluates on a folder of images; its command line is `main.py`.
Licence: Apache-2.0.
"""

import math
import sys
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from torch_ref.losses import cross_entropy
from torch_ref.metrics import accuracy
from torch_ref.optim import learning_rate, update

Batch = tuple[Tensor, Tensor]
Criterion = Callable[[Tensor, Tensor | tuple[Tensor, Tensor], Tensor], Tensor]


class TrainingFault(FloatingPointError):
    """A loss or a gradient that is not finite, found before the update: the weights are as they were.

    `micro_batch` and `sample` say which of the step's images it was, as far as can be told; else None.
    """

    def __init__(self, message: str, micro_batch: int, sample: int | None = None):
        super().__init__(message)
        self.micro_batch = micro_batch
        self.sample = sample


def train_step(
    model: nn.Module,
    micro_batches: Sequence[Batch],
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    schedule=None,
    clip_norm: float | None = None,
    ema=None,
    iteration: int | None = None,
) -> dict[str, float | None]:
    """One update from the mean of the micro-batches' losses.

    micro_batches: (images (N, C, H, W), targets) pairs, weighted equally. criterion: (images, outputs, targets) -> loss
    without axes. ema: object with `update(model)`, called once. iteration: only for messages. The mode of `model` is
    left as it is.

    Returns the loss, the learning rate of this update, and the gradient norm before clipping (None without clipping).
    Raises TrainingFault, before the update, if a loss or a gradient is not finite.
    """
    if not micro_batches:
        raise ValueError("a training step needs at least one micro-batch")
    record = {"loss": 0.0, "lr": learning_rate(optimizer), "grad_norm": None}
    for index, (images, targets) in enumerate(micro_batches):
        outputs = model(images)
        loss = criterion(images, outputs, targets)
        if loss.ndim:
            raise ValueError(f"the criterion gave a loss of shape {tuple(loss.shape)}; reduce it to one number")
        loss = loss / len(micro_batches)
        value = loss.item()
        if not math.isfinite(value):
            optimizer.zero_grad(set_to_none=True)  # half a sum of gradients must not leak into the next step
            sample, cause = _why_not_finite(model, images, outputs)
            place = "" if iteration is None else f"iteration {iteration}, "
            place += f"micro-batch {index + 1} of {len(micro_batches)}"
            raise TrainingFault(f"loss is {value} ({place}); the weights are unchanged: {cause}", index, sample)
        loss.backward()
        record["loss"] += value
    name = _first_gradient_not_finite(model)
    if name is not None:
        optimizer.zero_grad(set_to_none=True)
        place = "" if iteration is None else f" (iteration {iteration})"
        raise TrainingFault(
            f"gradient of {name} is not finite, the loss is {record['loss']}{place}; the weights are unchanged", index
        )
    record["grad_norm"] = update(optimizer, model, clip_norm)
    if ema is not None:
        ema.update(model)
    if schedule is not None:
        schedule.step()
    # Cleared last, and to None: between steps no gradient exists on either side, so what a step leaves behind can be
    # checked, memory is free for evaluation, and an unused parameter is skipped by the optimizer instead of decayed.
    optimizer.zero_grad(set_to_none=True)
    return record


def evaluate(model: nn.Module, batches: Iterable[Batch], criterion: Criterion | None = None) -> dict[str, float | int]:
    """Top-1, top-5 and mean loss over all samples of `batches` of (images (N, C, H, W), targets (N,)).

    Each batch counts by its size, so a smaller last one is right. In evaluation mode, without gradient; every module's
    mode is restored. criterion: (images, outputs, targets) -> loss; cross entropy by default.

    Returns {"acc1", "acc5"} (fractions), "loss" and "samples".
    """
    totals = {"acc1": 0.0, "acc5": 0.0, "loss": 0.0}
    samples = 0
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            for images, targets in batches:
                outputs = model(images)
                loss = criterion(images, outputs, targets) if criterion else cross_entropy(outputs, targets)
                acc1, acc5 = accuracy(outputs, targets, topk=(1, 5))
                for name, value in (("acc1", acc1), ("acc5", acc5), ("loss", loss.item())):
                    totals[name] += value * len(targets)
                samples += len(targets)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not samples:
        raise ValueError("nothing to evaluate: no batches")
    return {**{name: total / samples for name, total in totals.items()}, "samples": samples}


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    schedule=None,
    clip_norm: float | None = None,
    accumulation: int = 1,
    ema=None,
    on_iteration: Callable[[int, dict], None] | None = None,
    start: int = 0,
) -> int:
    """Train once through `batches` in training mode, one `train_step` for every `accumulation` of them.

    A remainder smaller than `accumulation` makes a last step of its own. on_iteration(iteration, record) is called
    after each step, counting from `start`. Returns the number after the last one.
    """
    if accumulation < 1:
        raise ValueError(f"accumulation over {accumulation} batches: at least 1")
    model.train()
    iteration = start
    for micro_batches in _grouped(batches, accumulation):
        record = train_step(model, micro_batches, criterion, optimizer, schedule, clip_norm, ema, iteration)
        if on_iteration is not None:
            on_iteration(iteration, record)
        iteration += 1
    return iteration


def _grouped(batches, size):
    """Lists of `size` batches, the last one perhaps shorter."""
    group = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _first_gradient_not_finite(model):
    """Name of the parameter whose gradient was the first in the backward pass to be not finite; None if all are."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # One sum first, finite if all are: it is cheap, and on a GPU each parameter's answer would have to be waited for.
    if not gradients or math.isfinite(sum(gradient.sum() for gradient in gradients.values()).item()):
        return None
    return next((name for name in reversed(gradients) if not torch.isfinite(gradients[name]).all().item()), None)


def _why_not_finite(model, images, outputs):
    """(index of the sample or None, sentence) about a loss that is not finite, from what led to it."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all().item():
            return None, f"parameter {name} is not finite"
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    for what, tensor in (("image", images), *(("logits", head) for head in heads)):
        finite = torch.isfinite(tensor).flatten(1).all(dim=1).tolist()
        if not all(finite) and (any(finite) or tensor is images):
            sample = finite.index(False)
            return sample, f"{what} of sample {sample} not finite"
        if not all(finite):
            return None, "the logits of no sample are finite, but all images and parameters are"
    return None, "images, parameters and logits are finite, so look at targets, teacher and criterion"


if __name__ == "__main__":
    from torch_ref.main import main  # here, because it imports this module

    sys.exit(main())
