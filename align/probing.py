"""`align.probe`: a name for a tensor in the middle of a user's own functional code, for both sides to be compared."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Tensor = TypeVar("Tensor")

_listeners: list[Callable[[str, object], None]] = []


def probe(name: str, tensor: Tensor) -> Tensor:
    """Give back the tensor; while a run records, note its value, and the gradient that reaches it, as `probe/<name>`.

    Put the same name into the reference and into the port. Outside a recording it does nothing and costs nothing.
    """
    for listener in _listeners:
        listener(name, tensor)
    return tensor


@contextmanager
def listening(listener: Callable[[str, object], None]) -> Iterator[None]:
    """Call the listener at every probe inside this block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
