"""SGD, heavy-ball momentum, Adam and AdamW in numpy float64, with every choice that ports make otherwise.

Adam: Kingma and Ba, arXiv 1412.6980, algorithm 1. Decoupled decay: Loshchilov and Hutter, arXiv 1711.05101, algorithm
2. Momentum as `torch.optim.SGD` has it, Nesterov's too. Clipping: Pascanu et al., arXiv 1211.5063, as
`torch.nn.utils.clip_grad_norm_`, which adds 1e-6 to the norm.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Arrays = Mapping[str, np.ndarray]
CLIPPED = 1e-6  # what PyTorch adds to the norm


@dataclass(frozen=True)
class Rule:
    """How gradients become parameters. `decayed` names the parameters that weight decay touches.

    `epsilon`: `outside` the root of the bias-corrected second moment, `inside` it, or `uncorrected`, added to the root
    before the bias correction. `clip`: over all gradients (`global`), over the decayed and the others each (`group`),
    each `parameter`'s own norm, or by `value`. `decay`: `decoupled` (times the rate), `coupled` (in the gradient),
    `after` (decoupled, of the updated parameter), `unscaled` (not times the rate). `decay_rates`: the rates by which
    decay is scaled, if not those of the update; `factor`: on the rate of the parameters that are `factored`.
    """

    adaptive: bool
    lr: float
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.0
    decayed: frozenset[str] = frozenset()
    decay: str = "coupled"
    epsilon: str = "outside"
    corrected: bool = True
    nesterov: bool = False
    dampening: float = 0.0
    max_norm: float | None = None
    clip: str = "global"
    added: float = CLIPPED
    unused: bool = False  # parameters without a gradient are updated, with zeros
    rates: Sequence[float] = ()  # of each update; else `lr` in all
    decay_rates: Sequence[float] = ()
    factor: float = 1.0  # on the rate of the parameters in `factored`
    factored: frozenset[str] = frozenset()


def run(
    rule: Rule, parameters: Arrays, gradients: Sequence[Arrays], recorded: Collection[int]
) -> dict[str, np.ndarray]:
    """What is left after the updates in `recorded` (from 1): `<parameter>/<slot>/<update>`, float64.

    Update u uses gradients[u % len(gradients)], float64, as the step does. Gradients of further parameters only count
    in the norm.
    """
    held = {name: array.astype(np.float64) for name, array in parameters.items()}
    slots: dict[str, dict[str, np.ndarray]] = {name: {} for name in held}
    counts = dict.fromkeys(held, 0)
    found: dict[str, np.ndarray] = {}
    for update in range(1, max(recorded) + 1):
        given, norm = _clipped(rule, gradients[update % len(gradients)])
        if rule.unused:
            given = {name: given.get(name, np.zeros_like(array)) for name, array in held.items()}
        rate = rule.rates[update - 1] if len(rule.rates) else rule.lr
        decay_rate = rule.decay_rates[update - 1] if len(rule.decay_rates) else rate
        for name in given.keys() & held.keys():
            gradient = given[name]
            counts[name] += 1
            factor = rule.factor if name in rule.factored else 1.0
            held[name] = _updated(
                rule, name, held[name], gradient, slots[name], counts[name], factor * rate, factor * decay_rate
            )
        if update in recorded:
            for name, array in held.items():
                found[f"{name}/param/{update}"] = array
                found |= {f"{name}/{slot}/{update}": value for slot, value in slots[name].items()}
            if norm is not None:
                found[f"grad_norm/{update}"] = np.array(norm)
    return found


def _clipped(rule: Rule, given: Arrays) -> tuple[dict[str, np.ndarray], float | None]:
    """The gradients after clipping, and the norm of all before it."""
    if rule.max_norm is None:
        return dict(given), None
    whole = _norm(given.values())
    if rule.clip == "value":
        return {name: np.clip(g, -rule.max_norm, rule.max_norm) for name, g in given.items()}, whole
    groups: dict[object, list[str]] = {}
    for name in given:
        key = {"global": None, "group": name in rule.decayed, "parameter": name}[rule.clip]
        groups.setdefault(key, []).append(name)
    answer = dict(given)
    for names in groups.values():
        factor = min(1.0, rule.max_norm / (_norm(given[name] for name in names) + rule.added))
        answer |= {name: given[name] * factor for name in names}
    return answer, whole


def _norm(arrays: Iterable[np.ndarray]) -> float:
    # Not by BLAS: its threads wait for one another where other processes keep the cores busy.
    return float(np.sqrt(sum(float(np.square(array).sum()) for array in arrays)))


def _updated(
    rule: Rule,
    name: str,
    value: np.ndarray,
    gradient: np.ndarray,
    slots: dict[str, np.ndarray],
    count: int,
    rate: float,
    decay_rate: float,
) -> np.ndarray:
    """One parameter after one update; its slots are replaced."""
    decay = rule.weight_decay if name in rule.decayed else 0.0
    if rule.decay == "coupled":
        gradient = gradient + decay * value
    elif rule.decay == "unscaled":
        value = value * (1 - decay)
    elif rule.decay == "decoupled":
        value = value * (1 - decay_rate * decay)
    step = _adaptive(rule, gradient, slots, count) if rule.adaptive else _heavy_ball(rule, gradient, slots)
    value = value - rate * step
    return value * (1 - decay_rate * decay) if rule.decay == "after" else value


def _adaptive(rule: Rule, gradient: np.ndarray, slots: dict[str, np.ndarray], count: int) -> np.ndarray:
    zeros = np.zeros_like(gradient)
    first = rule.beta1 * slots.get("exp_avg", zeros) + (1 - rule.beta1) * gradient
    second = rule.beta2 * slots.get("exp_avg_sq", zeros) + (1 - rule.beta2) * gradient**2
    slots["exp_avg"], slots["exp_avg_sq"] = first, second
    corrections = (1 - rule.beta1**count, 1 - rule.beta2**count) if rule.corrected else (1.0, 1.0)
    if rule.epsilon == "inside":
        root = np.sqrt(second / corrections[1] + rule.eps)
    elif rule.epsilon == "uncorrected":
        root = (np.sqrt(second) + rule.eps) / np.sqrt(corrections[1])
    else:
        root = np.sqrt(second / corrections[1]) + rule.eps
    with np.errstate(divide="ignore", invalid="ignore"):
        return first / corrections[0] / root


def _heavy_ball(rule: Rule, gradient: np.ndarray, slots: dict[str, np.ndarray]) -> np.ndarray:
    if not rule.momentum:
        return gradient
    held = slots.get("momentum_buffer")
    buffer = gradient if held is None else rule.momentum * held + (1 - rule.dampening) * gradient
    slots["momentum_buffer"] = buffer
    return gradient + rule.momentum * buffer if rule.nesterov else buffer
