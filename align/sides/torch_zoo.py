"""What the zoo compares and a constructor with literals cannot name: PyTorch's side. The twin is `paddle_zoo`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# What a loss takes: made of standard-normal inputs, or, for targets, of integers, which have no gradient.
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "positive": lambda x: x.abs() + 0.5,
    "probability": torch.sigmoid,
    "log_probabilities": lambda x: torch.log_softmax(x, -1),
    "probabilities": lambda n: torch.softmax(n.to(torch.get_default_dtype()), -1),
    "fraction": lambda n: n.to(torch.get_default_dtype()) / 16,
    "sign": lambda n: n.to(torch.get_default_dtype()) * 2 - 1,
    "flag": lambda n: n.to(torch.get_default_dtype()),
}


class Criterion(nn.Module):
    """A loss of `torch.nn`; `forms` says by input what is made of it before."""

    def __init__(self, name: str, forms: Sequence[str], **arguments: Any) -> None:
        super().__init__()
        self.loss, self.forms = getattr(nn, name)(**arguments), list(forms)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.loss(*(FORMS[form](x) for form, x in zip(self.forms, inputs, strict=True)))


class Attention(nn.Module):
    """`nn.MultiheadAttention`, batch first, whose weights are those of each head, and given only if `weights`."""

    def __init__(self, width: int, heads: int, weights: bool = False, **arguments: Any) -> None:
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(width, heads, batch_first=True, **arguments), weights

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Any:
        found = self.attention(
            query, key, value, attn_mask=attn_mask, need_weights=self.weights, average_attn_weights=False
        )
        return found if self.weights else found[0]


def updates(parameter: Tensor, gradient: Tensor, optimizer: str, iterations: int = 5, **arguments: Any) -> Tensor:
    """The parameter after each of several updates, (iterations, *shape).

    Each is given the gradient times 1.5, 1 or 0.5 in turn. Numbers are rounded to float32 first, as Paddle's
    kernels hold them whatever the tensors are.
    """
    target = nn.Parameter(parameter.detach().clone())
    made = getattr(torch.optim, optimizer)([target], **rounded(arguments))
    path = []
    for number in range(iterations):
        target.grad = gradient.detach() * factor(number)
        made.step()
        path.append(target.detach().clone())
    return torch.stack(path)


def rates(x: Tensor, scheduler: str, iterations: int, lr: float = 0.5, **arguments: Any) -> Tensor:
    """x (1,) times the learning rate before each of so many iterations, (iterations,)."""
    target = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([target], lr=lr)
    made = schedule(scheduler, optimizer, arguments)
    found = []
    for number in range(iterations):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step(*([metric(number)] if scheduler == "ReduceLROnPlateau" else []))
    return x * torch.tensor(found, dtype=x.dtype)


def schedule(name: str, optimizer: Any, arguments: dict[str, Any]) -> Any:
    if name in FUNCTIONS:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, FUNCTIONS[name])
    if name == "MultiplicativeLR":
        arguments = {"lr_lambda": lambda number: 0.9}
    return getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)


FUNCTIONS: dict[str, Callable[[int], float]] = {
    "inverse": lambda number: 1 / (1 + 0.1 * number),
    "natural": lambda number: math.exp(-0.1 * number),
    "noam": lambda number: 64**-0.5 * min(max(number, 1) ** -0.5, number * 10**-1.5),
    "half": lambda number: 0.5**number,
}


def metric(number: int) -> float:
    """Falls, stays, and falls again, as a plateau needs."""
    return 1 / (1 + min(number, 3)) if number < 12 else 0.1 / number


def factor(number: int) -> float:
    return 1.5 - 0.5 * (number % 3)


def rounded(arguments: dict[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, float):
            return torch.tensor(value, dtype=torch.float32).item()
        return tuple(map(one, value)) if isinstance(value, (list, tuple)) else value

    return {name: one(value) for name, value in arguments.items()}
