"""Letting gradients flow through what a model stops them with, to see whether that is what is wrong."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import paddle
from paddle.base.dygraph import base


@contextmanager
def attached(model: Any, what: Collection[str]) -> Iterator[None]:
    """`PaddleSide.attached`. Everything is put back on leaving."""
    with ExitStack() as stack:
        if "parameters" in what:
            for parameter in model.parameters():
                stack.callback(setattr, parameter, "stop_gradient", parameter.stop_gradient)
                parameter.stop_gradient = False
        if "operations" in what:
            _take_away(stack)
        yield


def _take_away(stack: ExitStack) -> None:
    """`detach`, `no_grad`, and `stop_gradient = True` of a value that something has computed do nothing."""
    tensor, enable = paddle.Tensor, base._set_grad_enabled
    held = tensor.stop_gradient

    def stop(value: Any, stopped: bool) -> None:
        if not (stopped and not value.stop_gradient and not value.is_leaf):
            held.__set__(value, stopped)

    replacements = {
        "detach": lambda value: value,
        "detach_": lambda value: value,
        "stop_gradient": property(held.__get__, stop),
    }
    for name, replacement in replacements.items():
        stack.callback(setattr, tensor, name, getattr(tensor, name))
        setattr(tensor, name, replacement)
    stack.callback(setattr, base, "_set_grad_enabled", enable)
    base._set_grad_enabled = lambda enabled: enable(True)
