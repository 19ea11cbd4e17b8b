"""PyTorch's kernels that compute in float32 what goes with float64 tensors, as they would be in float64.

The counterpart of `paddle_exact`. The gradient of `hardsigmoid` multiplies by a float32 of 1 / 6. How far a kernel is
off is measured, so that a PyTorch without the flaw is left as it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

NEAR = 2.0**-23  # relative: what float32 may have made of a constant


@contextmanager
def exact() -> Iterator[None]:
    """In this block the kernels above are exact for float64 tensors, where they are called through `torch.nn`."""
    kernel = torch._C._nn.hardsigmoid
    torch._C._nn.hardsigmoid = _hardsigmoid(kernel)
    try:
        yield
    finally:
        torch._C._nn.hardsigmoid = kernel


def _hardsigmoid(kernel: Callable[..., Any]) -> Callable[..., Any]:
    @cache
    def slope() -> float:
        """The gradient at 0, which is 1 / 6."""
        with torch.enable_grad():
            x = torch.zeros((), dtype=torch.float64, requires_grad=True)
            return float(torch.autograd.grad(kernel(x), x)[0])

    def call(x: torch.Tensor) -> torch.Tensor:
        made = kernel(x)
        if made.dtype != torch.float64 or not made.requires_grad:
            return made
        factor = 1 / 6 / slope()
        if factor == 1 or abs(factor - 1) > NEAR:
            return made
        made.register_hook(lambda gradient: gradient * factor)
        return made.view_as(made)  # whoever watches the result sees the gradient that has come

    return call
