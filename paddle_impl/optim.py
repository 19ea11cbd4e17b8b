"""Optimizers, clipping and the learning-rate schedule of the DeiT/PiT recipe.

Parameter groups and schedule follow timm (timm/optim/_param_groups.py, timm/scheduler/cosine_lr.py, Apache-2.0), the
optimizers are Paddle's. AdamW: "Decoupled Weight Decay Regularization" (arXiv 1711.05101). Licence: Apache-2.0.
"""

import functools
import math
from fnmatch import fnmatch

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer.lr import LRScheduler
from paddle.regularizer import WeightDecayRegularizer

from paddle_impl.checkpoint import to_numpy
from paddle_impl.weights import transposed_keys

# paddle: its accumulators, by PyTorch's names. It counts no updates, but keeps both betas to the power of that count.
ACCUMULATORS = {"exp_avg": "moment1", "exp_avg_sq": "moment2", "momentum_buffer": "velocity"}


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

    def resume(self, iteration: int) -> None:
        """Bring a new schedule to where `iteration` updates are done."""
        self.step(iteration)


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


def optimizer_state(optimizer: paddle.optimizer.Optimizer, model: nn.Layer) -> dict[str, np.ndarray]:
    """What the optimizer keeps of every parameter that it has updated: {"<parameter>/<slot>": array}.

    Slots: "exp_avg" and "exp_avg_sq" (Adam family) and "momentum_buffer" (momentum), of the parameter's shape in
    PyTorch's layout and of its dtype (float32 for bfloat16); "step" (Adam family), the number of its updates, int64
    without axes.
    """
    held, turned = _accumulators(optimizer), set(transposed_keys(model))
    state = {}
    for name, parameter in model.named_parameters():
        for slot in _slots(optimizer):
            if slot == "step" and f"{parameter.name}_beta2_pow_acc" in held:
                state[f"{name}/step"] = _count(held[f"{parameter.name}_beta2_pow_acc"].numpy(), optimizer._beta2)
            elif slot != "step" and f"{parameter.name}_{ACCUMULATORS[slot]}" in held:
                array = to_numpy(held[f"{parameter.name}_{ACCUMULATORS[slot]}"])
                state[f"{name}/{slot}"] = array.T.copy() if name in turned else array
    return state


def load_optimizer_state(optimizer: paddle.optimizer.Optimizer, model: nn.Layer, state: dict[str, np.ndarray]) -> None:
    """Put what `optimizer_state` gave, of either framework, into a new optimizer of the same kind over `model`.

    Raises ValueError for a parameter that the model has not, a slot that the optimizer has not, or another shape.
    """
    slots, turned = _slots(optimizer), set(transposed_keys(model))
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(p.shape[::-1] if name in turned else p.shape) for name, p in parameters.items()}
    _check_state(state, slots, shapes)
    # paddle: not by set_state_dict. It expects the accumulators' own numbered names, and a parameter that gets its
    # first gradient after it raises (paddle 3.3.1, `Optimizer._add_accumulator`). They are made here and filled.
    known = [parameter for name, parameter in parameters.items() if any(f"{name}/{slot}" in state for slot in slots)]
    optimizer._create_accumulators(paddle.static.default_main_program().global_block(), known)
    held = _accumulators(optimizer)
    for key, array in state.items():
        name, _, slot = key.rpartition("/")
        prefix = parameters[name].name
        if slot == "step":
            for beta, value in (("beta1", optimizer._beta1), ("beta2", optimizer._beta2)):
                power = held[f"{prefix}_{beta}_pow_acc"]
                power.set_value(_powers(value, power.numpy().dtype, int(array) + 1)[-1:])
        else:
            array = array.T if name in turned else array
            held[f"{prefix}_{ACCUMULATORS[slot]}"].set_value(np.ascontiguousarray(array))


def _slots(optimizer):
    """The slots of this kind of optimizer."""
    if isinstance(optimizer, (paddle.optimizer.Adam, paddle.optimizer.AdamW)):
        return ("step", "exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if isinstance(optimizer, paddle.optimizer.Momentum) else ()


def _accumulators(optimizer):
    """{"<Parameter.name>_<accumulator>": tensor}: Paddle adds "_0", "_1", ... for each optimizer of a parameter."""
    return {key.rpartition("_")[0]: tensor for key, tensor in optimizer.state_dict().items() if key != "LR_Scheduler"}


def _count(power, beta):
    """Number of updates after which Paddle's accumulator of beta ** (updates + 1) holds `power`, (1,)."""
    # paddle: in the accumulator's type, one product an update, so that the count can be told exactly until the power
    # has no normal value left (.999 in float32: 87,000 updates); from there on it no longer matters.
    length = 1024
    while (powers := _powers(beta, power.dtype, length))[-1] > max(power[0], np.finfo(power.dtype).tiny):
        length *= 2
    return np.array(np.argmax(powers <= power[0]), dtype=np.int64)


@functools.lru_cache(maxsize=64)
def _powers(beta, dtype, length):
    """beta ** 1, 2, ..., length as one product after the other in `dtype`."""
    return np.multiply.accumulate(np.full(length, beta, dtype))


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
