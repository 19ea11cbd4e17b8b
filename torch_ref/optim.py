"""Optimizers, clipping and the learning-rate schedule of the DeiT/PiT recipe.

Parameter groups and schedule are timm's (timm/optim/_param_groups.py, timm/scheduler/cosine_lr.py), the optimizers
PyTorch's. AdamW: "Decoupled Weight Decay Regularization" (arXiv 1711.05101). Licence: Apache-2.0.
"""

import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn


def param_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """timm's rule: no decay for 1-D parameters, biases, and what `model.no_weight_decay()` names.

    Returns [{"params", "weight_decay": 0.0}, {"params", "weight_decay"}], without the empty ones,
    trainable parameters only, in model order.
    """
    skip = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    return param_groups_weight_decay(model, weight_decay, no_weight_decay_list=skip)


def build_optimizer(
    model: nn.Module,
    name: str = "adamw",
    lr: float = 5e-4,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters of `model`, decaying only what `param_groups` says.

    name: "adamw" (decoupled decay), "adam" (decay added to the gradient), "sgd" (no momentum), "momentum" (heavy ball,
    not Nesterov). `betas` and `eps` belong to the Adam family, `momentum` to "momentum". Defaults are DeiT's recipe.
    """
    groups = param_groups(model, weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, weight_decay=weight_decay)
    if name == "momentum":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
    raise ValueError(f"unknown optimizer {name!r}: choose adamw, adam, sgd or momentum")


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate that the next update uses."""
    return optimizer.param_groups[0]["lr"]


class CosineSchedule:
    """Learning rate per iteration: linear warm-up, then half a cosine, not shifted by the warm-up.

    With t iterations done, `lr` is warmup_lr + t * (lr - warmup_lr) / warmup_iterations during the warm-up, then
    min_lr + (lr - min_lr) * (1 + cos(pi * t / iterations)) / 2, and min_lr from `iterations` on.
    """

    def __init__(self, optimizer, lr, iterations, warmup_iterations, warmup_lr, min_lr):
        if iterations < 1 or warmup_iterations < 0:
            raise ValueError(f"a schedule of {iterations} iterations, {warmup_iterations} of them warm-up")
        for group in optimizer.param_groups:  # the peak is this schedule's, whatever the optimizer was built with
            group["lr"] = group["initial_lr"] = lr
        self.optimizer = optimizer
        self.iteration = 0
        self._scheduler = CosineLRScheduler(
            optimizer,
            t_initial=iterations,
            lr_min=min_lr,
            warmup_t=warmup_iterations,
            warmup_lr_init=warmup_lr,
            warmup_prefix=False,
            t_in_epochs=False,
        )

    @property
    def lr(self) -> float:
        """The learning rate that the next update uses."""
        return learning_rate(self.optimizer)

    def step(self) -> None:
        """Count one update done; call after it."""
        self.iteration += 1
        self._scheduler.step_update(self.iteration)


def build_schedule(
    optimizer: torch.optim.Optimizer,
    lr: float,
    iterations: int,
    warmup_iterations: int = 0,
    warmup_lr: float = 1e-6,
    min_lr: float = 1e-5,
) -> CosineSchedule:
    """Put `optimizer` under a `CosineSchedule` with peak `lr`; with a warm-up the first update runs at `warmup_lr`."""
    return CosineSchedule(optimizer, lr, iterations, warmup_iterations, warmup_lr, min_lr)


def update(optimizer: torch.optim.Optimizer, model: nn.Module, clip_norm: float | None = None) -> float | None:
    """Clip the gradients to a global norm of `clip_norm`, if given, and let the optimizer step.

    One norm over all parameters, whatever their group; parameters without a gradient are left alone. Returns the norm
    before clipping, or None without clipping. Gradients are not cleared.
    """
    norm = None
    if clip_norm is not None:
        # what timm.utils.dispatch_clip_grad calls in its mode "norm"; called here because that drops the norm
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm).item()
    optimizer.step()
    return norm
