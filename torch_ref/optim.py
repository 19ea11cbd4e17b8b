"""Optimizers, clipping and the learning-rate schedule of the DeiT/PiT recipe.

Parameter groups and schedule are timm's (timm/optim/_param_groups.py, timm/scheduler/cosine_lr.py), the optimizers
PyTorch's. AdamW: "Decoupled Weight Decay Regularization" (arXiv 1711.05101). Licence: Apache-2.0.
"""

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

from torch_ref.checkpoint import to_numpy


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

    def resume(self, iteration: int) -> None:
        """Bring a new schedule to where `iteration` updates are done."""
        self.iteration = iteration
        if iteration:  # the optimizer has the first rate already: the formula at 0 can be an ulp away
            self._scheduler.step_update(iteration)


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


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, np.ndarray]:
    """What the optimizer keeps of every parameter that it has updated: {"<parameter>/<slot>": array}.

    Slots: "exp_avg" and "exp_avg_sq" (Adam family) and "momentum_buffer" (momentum), of the parameter's shape in
    PyTorch's layout and of its dtype (float32 for bfloat16); "step" (Adam family), the number of its updates, int64
    without axes.
    """
    state = {}
    for name, parameter in model.named_parameters():
        for slot, tensor in optimizer.state.get(parameter, {}).items():
            if tensor is not None:  # the momentum buffer of SGD without momentum
                array = to_numpy(tensor)
                state[f"{name}/{slot}"] = array.astype(np.int64) if slot == "step" else array
    return state


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: dict[str, np.ndarray]) -> None:
    """Put what `optimizer_state` gave, of either framework, into a new optimizer of the same kind over `model`.

    Raises ValueError for a parameter that the model has not, a slot that the optimizer has not, or another shape.
    """
    slots = _slots(optimizer)
    parameters = dict(model.named_parameters())
    _check_state(state, slots, {name: tuple(parameter.shape) for name, parameter in parameters.items()})
    names = {id(parameter): name for name, parameter in parameters.items()}
    content = optimizer.state_dict()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(trained):  # the order in which state_dict() numbers them
        held = {slot: state.get(f"{names[id(parameter)]}/{slot}") for slot in slots}
        if any(array is not None for array in held.values()):
            content["state"][index] = {slot: torch.tensor(np.asarray(array)) for slot, array in held.items()}
            if "step" in slots:
                content["state"][index]["step"] = torch.tensor(float(held["step"]))
    optimizer.load_state_dict(content)


def _slots(optimizer):
    """The slots of this kind of optimizer."""
    if isinstance(optimizer, torch.optim.Adam):  # AdamW is derived from it
        return ("step", "exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if optimizer.defaults["momentum"] else ()


def _check_state(state, slots, shapes):
    """Raise ValueError unless every parameter in `state` is known, with all of these slots and no other."""
    for key, array in state.items():
        name, _, slot = key.rpartition("/")
        if name not in shapes:
            raise ValueError(f"optimizer state {key!r}: the model has no parameter {name!r}")
        if slot not in slots:
            raise ValueError(f"optimizer state {key!r}: this optimizer keeps {', '.join(slots) or 'nothing'}")
        expected = () if slot == "step" else shapes[name]
        if array.shape != expected:
            raise ValueError(f"optimizer state {key!r}: shape {array.shape}, where the model needs {expected}")
        lacking = [other for other in slots if f"{name}/{other}" not in state]
        if lacking:
            raise ValueError(f"optimizer state of {name!r}: lacks {', '.join(lacking)}")
