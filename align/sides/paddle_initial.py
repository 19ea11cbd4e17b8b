"""Who writes Paddle's parameters: every initialiser remembers who made it, and whom it was called for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paddle
from paddle.nn.initializer.initializer import Initializer

from align.record.origins import Writes
from align.record.source import user_place

MADE = "_align_made"


@contextmanager
def noting_writes() -> Iterator[Writes]:
    """In this block the initialisers, and `set_value`, are noted."""
    writes = Writes({}, {}, [])
    call, set_value = Initializer.__call__, paddle.Tensor.set_value

    def new(cls: type, *_: Any, **__: Any) -> Any:
        made: Any = object.__new__(cls)
        made.__dict__[MADE] = user_place(skip_self=made)
        return made

    def noted(parameter: Any, decided: Any) -> None:
        writes.written[id(parameter)] = user_place()
        writes.decided[id(parameter)] = decided
        writes.kept.append(parameter)

    def called(self: Any, parameter: Any, *args: Any, **kwargs: Any) -> Any:
        noted(parameter, self.__dict__.get(MADE))
        return call(self, parameter, *args, **kwargs)

    def setting(self: Any, *args: Any, **kwargs: Any) -> Any:
        noted(self, None)
        return set_value(self, *args, **kwargs)

    Initializer.__new__, Initializer.__call__ = new, called
    paddle.Tensor.set_value = setting
    try:
        yield writes
    finally:
        del Initializer.__new__
        Initializer.__call__ = call
        paddle.Tensor.set_value = set_value
