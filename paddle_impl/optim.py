"""Optimizers, clipping and the learning-rate schedule of the DeiT/PiT recipe.

Parameter groups and schedule follow timm (timm/optim/_param_groups.py, timm/scheduler/cosine_lr.py, Apache-2.0), the
optimizers are Paddle's. AdamW: "Decoupled Weight Decay Regularization" (arXiv 1711.05101). Licence: Apache-2.0.
"""

import math
from fnmatch import fnmatch

import paddle
from paddle import nn
from paddle.optimizer.lr import LRScheduler
from paddle.regularizer import WeightDecayRegularizer


def param_groups(model: nn.Layer, weight_decay: float) -> list[dict]:
    """timm's rule: no decay for 1-D parameters, biases, and what `model.no_weight_decay()` names.

    Returns [{"params", "weight_decay": 0.0}, {"params", "weight_decay"}], without the empty ones,
    trainable parameters only, in model order.
    """
    skip = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = {0.0: [], weight_decay: []}
    for name, parameter in model.named_parameters():
        if parameter.stop_gradient:
            continue
        exempt = parameter.ndim <= 1 or name.endswith(".bias") or any(fnmatch(name, pattern) for pattern in skip)
        groups[0.0 if exempt else weight_decay].append(parameter)
    return [{"params": params, "weight_decay": decay} for decay, params in groups.items() if params]


def build_optimizer(
    model: nn.Layer,
    name: str = "adamw",
    lr: float = 5e-4,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.9,
) -> paddle.optimizer.Optimizer:
    """An optimizer over the trainable parameters of `model`, decaying only what `param_groups` says.

    name: "adamw" (decoupled decay), "adam" (decay added to the gradient), "sgd" (no momentum), "momentum" (heavy ball,
    not Nesterov). `betas` and `eps` belong to the Adam family, `momentum` to "momentum". Defaults are DeiT's recipe.
    """
    # paddle: one list of parameters, not groups. Its groups write a regulariser into each parameter, which a later
    # optimizer on the same model would apply again, and read "learning_rate" as a factor. What decays is told by
    # `Parameter.name` ("linear_0.w_0"), the name that Paddle's optimizers know; it is not the name in the state dict.
    groups = param_groups(model, weight_decay)
    parameters = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    decayed = {parameter.name for group in groups if group["weight_decay"] for parameter in group["params"]}
    adam = {"beta1": betas[0], "beta2": betas[1], "epsilon": eps}
    coupled = {"weight_decay": _SelectiveL2Decay(weight_decay, decayed) if decayed else None}
    if name == "adamw":
        return paddle.optimizer.AdamW(
            lr, parameters=parameters, **adam, weight_decay=weight_decay, apply_decay_param_fun=decayed.__contains__
        )
    if name == "adam":
        return paddle.optimizer.Adam(lr, parameters=parameters, **adam, **coupled)
    if name == "sgd":
        return paddle.optimizer.SGD(lr, parameters=parameters, **coupled)
    if name == "momentum":
        return paddle.optimizer.Momentum(lr, momentum=momentum, parameters=parameters, **coupled)
    raise ValueError(f"unknown optimizer {name!r}: choose adamw, adam, sgd or momentum")


class _SelectiveL2Decay(WeightDecayRegularizer):
    """Weight decay added to the gradient, for the named parameters only."""

    # paddle: stands for PyTorch's parameter groups in Adam, SGD and Momentum, whose weight_decay is for all parameters
    # (only AdamW takes apply_decay_param_fun).

    def __init__(self, coefficient: float, names: set[str]):
        super().__init__()
        self.coefficient = coefficient
        self.names = names

    def __call__(self, param, grad, block):
        """The term that Paddle adds to `grad`."""
        return param * (self.coefficient if param.name in self.names else 0.0)


def learning_rate(optimizer: paddle.optimizer.Optimizer) -> float:
    """The learning rate that the next update uses."""
    return optimizer.get_lr()


class CosineSchedule(LRScheduler):
    """Learning rate per iteration: linear warm-up, then half a cosine, not shifted by the warm-up.

    With t iterations done, `lr` is warmup_lr + t * (lr - warmup_lr) / warmup_iterations during the warm-up, then
    min_lr + (lr - min_lr) * (1 + cos(pi * t / iterations)) / 2, and min_lr from `iterations` on.
    """

    def __init__(self, optimizer, lr, iterations, warmup_iterations, warmup_lr, min_lr):
        if iterations < 1 or warmup_iterations < 0:
            raise ValueError(f"a schedule of {iterations} iterations, {warmup_iterations} of them warm-up")
        self.iterations = iterations
        self.warmup_iterations = warmup_iterations
        self.warmup_lr = warmup_lr
        self.min_lr = min_lr
        # paddle: the base class calls step() once here, which moves last_epoch from -1 to 0 and sets the first rate.
        super().__init__(learning_rate=lr)
        optimizer.set_lr_scheduler(self)

    def get_lr(self) -> float:
        """The rate for `last_epoch`, by the operations of timm's `CosineLRScheduler._get_lr` in their order."""
        t = self.last_epoch
        if t < self.warmup_iterations:
            return self.warmup_lr + t * ((self.base_lr - self.warmup_lr) / self.warmup_iterations)
        if t == 0:
            return self.base_lr  # timm starts from the optimizer's own rate: the formula below can be an ulp away
        if t >= self.iterations:
            return self.min_lr
        return self.min_lr + 0.5 * (self.base_lr - self.min_lr) * (1 + math.cos(math.pi * t / self.iterations))

    @property
    def iteration(self) -> int:
        """Number of updates done."""
        return self.last_epoch

    @property
    def lr(self) -> float:
        """The learning rate that the next update uses."""
        return self.last_lr


def build_schedule(
    optimizer: paddle.optimizer.Optimizer,
    lr: float,
    iterations: int,
    warmup_iterations: int = 0,
    warmup_lr: float = 1e-6,
    min_lr: float = 1e-5,
) -> CosineSchedule:
    """Put `optimizer` under a `CosineSchedule` with peak `lr`; with a warm-up the first update runs at `warmup_lr`."""
    return CosineSchedule(optimizer, lr, iterations, warmup_iterations, warmup_lr, min_lr)


def update(optimizer: paddle.optimizer.Optimizer, model: nn.Layer, clip_norm: float | None = None) -> float | None:
    """Clip the gradients to a global norm of `clip_norm`, if given, and let the optimizer step.

    One norm over all parameters, whatever their group; parameters without a gradient are left alone. Returns the norm
    before clipping, or None without clipping. Gradients are not cleared.
    """
    norm = None
    if clip_norm is not None:
        # paddle: not the optimizer's grad_clip=ClipGradByGlobalNorm, which clips each group by its own norm and lacks
        # the 1e-6 that torch's clip_grad_norm_ adds to the norm.
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm).item()
    optimizer.step()
    return norm
