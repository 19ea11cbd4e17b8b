"""What of a step can be replayed: a model, its inputs, and, where the step has a backward, the loss of its outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Subject:
    """`loss` is None for a step that only goes forward; otherwise it takes the model's outputs and gives a scalar."""

    model: Any
    inputs: list[Any]
    loss: Callable[[Any], Any] | None = None
