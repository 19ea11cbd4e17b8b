"""What of a step can be replayed: a model, its inputs, and, where the step has a backward, the loss of its outputs."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Subject:
    """`loss` is None for a step that only goes forward; otherwise it takes the model's outputs and gives a scalar.

    `reference_names` holds the reference's name of each of the model's parameters by the model's own. `randomness()` is
    what it runs in, if it draws: the numbers are the same every time.
    """

    model: Any
    inputs: list[Any]
    loss: Callable[[Any], Any] | None = None
    reference_names: Mapping[str, str] = field(default_factory=dict)
    randomness: Callable[[], AbstractContextManager[Any]] = nullcontext
