"""PyTorch's first values of parameters: who writes them, and building a model without drawing them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from align.record.origins import Writes
from align.record.source import user_place

DRAWS = torch.Tag.nondeterministic_seeded
UNDRAWN = 0.5  # no zero: a constructor may divide by a norm


class _Noting(TorchDispatchMode):
    def __init__(self, writes: Writes) -> None:
        super().__init__()
        self._writes = writes

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if args and isinstance(args[0], torch.nn.Parameter) and func._schema.is_mutable:  # type: ignore[attr-defined]
            self._writes.written[id(args[0])] = user_place()
            self._writes.kept.append(args[0])
        return func(*args, **(kwargs or {}))


class Undrawn(TorchDispatchMode):
    """In this block nothing is drawn for parameters, which is most of what it costs to build a large model."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        drawn = DRAWS in getattr(func, "tags", ()) and func._schema.is_mutable  # type: ignore[attr-defined]
        if drawn and args and isinstance(args[0], torch.nn.Parameter):
            return args[0].fill_(UNDRAWN)
        return func(*args, **(kwargs or {}))


@contextmanager
def noting_writes() -> Iterator[Writes]:
    """In this block what is written into parameters is noted; who decides the values is who writes them."""
    writes = Writes({}, {}, [])
    with _Noting(writes):
        yield writes
