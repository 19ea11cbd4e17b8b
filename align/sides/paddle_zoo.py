"""What the zoo compares and a constructor with literals cannot name: PaddlePaddle's side. The twin is `torch_zoo`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

# As in `torch_zoo`.
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "positive": lambda x: x.abs() + 0.5,
    "probability": nn.functional.sigmoid,
    "log_probabilities": lambda x: nn.functional.log_softmax(x, -1),
    "probabilities": lambda n: nn.functional.softmax(n.astype(paddle.get_default_dtype()), -1),
    "fraction": lambda n: n.astype(paddle.get_default_dtype()) / 16,
    "sign": lambda n: n.astype(paddle.get_default_dtype()) * 2 - 1,
    "flag": lambda n: n.astype(paddle.get_default_dtype()),
}


class Criterion(nn.Layer):
    """A loss of `paddle.nn`; `forms` says by input what is made of it before."""

    def __init__(self, name: str, forms: Sequence[str], **arguments: Any) -> None:
        super().__init__()
        self.loss, self.forms = getattr(nn, name)(**arguments), list(forms)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.loss(*(FORMS[form](x) for form, x in zip(self.forms, inputs, strict=True)))


class GaussianNLL(nn.Layer):
    """The loss with the gradient of its variance, which `paddle.nn.GaussianNLLLoss` loses in a `clip` without one."""

    def forward(self, mean: Tensor, target: Tensor, variance: Tensor) -> Tensor:
        variance = FORMS["positive"](variance)
        return (0.5 * (paddle.log(variance) + paddle.square(mean - target) / variance)).mean()


class StateOf(nn.Layer):
    """A recurrent cell that gives its new state alone, as PyTorch's do: Paddle's give the output beside it."""

    def __init__(self, name: str, *sizes: int) -> None:
        super().__init__()
        self.cell = getattr(nn, name)(*sizes)

    def forward(self, *inputs: Tensor) -> Any:
        return self.cell(*inputs)[1]


def updates(parameter: Tensor, gradient: Tensor, optimizer: str, iterations: int = 5, **arguments: Any) -> Tensor:
    """The parameter after each of several updates, (iterations, *shape)."""
    target = paddle.create_parameter(parameter.shape, dtype=parameter.dtype)
    target.set_value(parameter.detach())
    made = getattr(paddle.optimizer, optimizer)(parameters=[target], **rounded(arguments))
    path = []
    with paddle.enable_grad():
        for number in range(iterations):
            made.clear_grad(set_to_zero=False)
            (target * (gradient.detach() * (1.5 - 0.5 * (number % 3)))).sum().backward()
            made.step()
            path.append(target.detach().clone())
    return paddle.stack(path)


def rates(x: Tensor, scheduler: str, iterations: int, lr: float | None = 0.5, **arguments: Any) -> Tensor:
    """x (1,) times the learning rate before each of so many iterations, (iterations,)."""
    if scheduler == "MultiplicativeDecay":
        arguments = {"lr_lambda": lambda number: 0.9}
    if scheduler == "LambdaDecay":
        arguments = {"lr_lambda": lambda number: 0.5**number}
    given = {} if lr is None else {"learning_rate": lr}
    made = getattr(paddle.optimizer.lr, scheduler)(**given, **arguments)
    found = []
    for number in range(iterations):
        found.append(float(made()))
        made.step(*([paddle.to_tensor(metric(number))] if scheduler == "ReduceOnPlateau" else []))
    return x * paddle.to_tensor(np.array(found), dtype=x.dtype)


def metric(number: int) -> float:
    """As in `torch_zoo`."""
    return 1 / (1 + min(number, 3)) if number < 12 else 0.1 / number


def rounded(arguments: dict[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, float):
            return float(np.float32(value))
        return tuple(map(one, value)) if isinstance(value, (list, tuple)) else value

    return {name: one(value) for name, value in arguments.items()}
