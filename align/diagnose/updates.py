"""SGD, heavy-ball momentum, Adam and AdamW in numpy float64, with every choice that ports make otherwise.

Adam: Kingma and Ba, arXiv 1412.6980, algorithm 1. Decoupled decay: Loshchilov and Hutter, arXiv 1711.05101, algorithm
2. Momentum as `torch.optim.SGD` has it, Nesterov's too. Clipping: Pascanu et al., arXiv 1211.5063, as
`torch.nn.utils.clip_grad_norm_`, which adds 1e-6 to the norm.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    rule: Rule,
    parameters: Arrays,
    gradients: Sequence[Arrays],
    recorded: Collection[int],
    squares: Sequence[Mapping[str, float]] = (),
) -> dict[str, np.ndarray]:
    """What is left after the updates in `recorded` (from 1): `<parameter>/<slot>/<update>`, float64.

    Update u uses gradients[u % len(gradients)], float64, as the step does. Gradients of further parameters only count
    in the norm. `squares`: of the gradients, see `squares_of`, where they are known already.
    """
    last, count = max(recorded), len(gradients)
    used = {update % count for update in range(1, last + 1)}
    squares = squares or [squares_of(some) for some in gradients]
    given = {number: _given(rule, parameters, gradients[number], squares[number]) for number in used}
    # Parameters of the same treatment are one long vector.
    groups: dict[tuple[bool, ...], list[str]] = {}
    for name in parameters:
        treatment = (name in rule.decayed, name in rule.factored, *(name in some for some, _ in given.values()))
        groups.setdefault(treatment, []).append(name)
    joined = [
        {number: _joined(some, names) for number, (some, _) in given.items() if names[0] in some}
        for names in groups.values()
    ]
    held = [_joined(parameters, names) for names in groups.values()]
    slots: list[dict[str, np.ndarray]] = [{} for _ in groups]
    counts = [0] * len(groups)
    found: dict[str, np.ndarray] = {}
    for update in range(1, last + 1):
        number = update % count
        rate = rule.rates[update - 1] if len(rule.rates) else rule.lr
        decay_rate = rule.decay_rates[update - 1] if len(rule.decay_rates) else rate
        for at, names in enumerate(groups.values()):
            gradient = joined[at].get(number)
            if gradient is not None:
                counts[at] += 1
                factor = rule.factor if names[0] in rule.factored else 1.0
                rates = factor * rate, factor * decay_rate
                held[at] = _updated(rule, names[0] in rule.decayed, held[at], gradient, slots[at], counts[at], *rates)
        if update in recorded:
            for at, names in enumerate(groups.values()):
                for slot, values in {"param": held[at], **slots[at]}.items():
                    found |= {f"{name}/{slot}/{update}": part for name, part in _parted(values, parameters, names)}
            norm = given[number][1]
            if norm is not None:
                found[f"grad_norm/{update}"] = np.array(norm)
    return found


def squares_of(gradients: Arrays) -> dict[str, float]:
    """By parameter, the sum of the squares of its gradient."""
    # Not by BLAS: its threads wait for one another where other processes keep the cores busy.
    return {name: float(np.square(array).sum()) for name, array in gradients.items()}


def _given(
    rule: Rule, parameters: Arrays, gradients: Arrays, squares: Mapping[str, float]
) -> tuple[dict[str, np.ndarray], float | None]:
    """The parameters' gradients of one update after clipping, and the norm of all before it."""
    given = {name: gradients[name] for name in parameters if name in gradients}
    if rule.unused:
        given = {name: given.get(name, np.zeros(array.shape)) for name, array in parameters.items()}
    if rule.max_norm is None:
        return given, None
    norm = _norm(squares.values())
    if rule.clip == "value":
        return {name: np.clip(g, -rule.max_norm, rule.max_norm) for name, g in given.items()}, norm
    groups: dict[object, list[float]] = {}
    for name, square in squares.items():
        groups.setdefault(_group(rule, name), []).append(square)
    factors = {key: min(1.0, rule.max_norm / (_norm(sums) + rule.added)) for key, sums in groups.items()}
    return {name: g * factors.get(_group(rule, name), 1.0) for name, g in given.items()}, norm


def _group(rule: Rule, name: str) -> object:
    """What of the gradients is clipped together."""
    return {"global": None, "group": name in rule.decayed, "parameter": name}[rule.clip]


def _norm(squares: Iterable[float]) -> float:
    return float(np.sqrt(sum(squares)))


def _joined(arrays: Arrays, names: Iterable[str]) -> np.ndarray:
    return np.concatenate([arrays[name].reshape(-1) for name in names], dtype=np.float64)


def _parted(values: np.ndarray, parameters: Arrays, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The parts of a long vector, each in its parameter's shape."""
    begin = 0
    for name in names:
        size = parameters[name].size
        yield name, values[begin : begin + size].reshape(parameters[name].shape)
        begin += size


def _updated(
    rule: Rule,
    decayed: bool,
    value: np.ndarray,
    gradient: np.ndarray,
    slots: dict[str, np.ndarray],
    count: int,
    rate: float,
    decay_rate: float,
) -> np.ndarray:
    """Parameters of one treatment after one update; their slots are replaced."""
    decay = rule.weight_decay if decayed else 0.0
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
