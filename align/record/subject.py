"""What of a step can be replayed: a model, its inputs, and, where the step has a backward, the loss of its outputs."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from align.record.naming import Naming


@dataclass(frozen=True)
class Subject:
    """`loss` is None for a step that only goes forward; otherwise it takes the model's outputs and gives a scalar.

    `naming` says which of the model's parameters are which of the reference's. `randomness()` is what it runs in, if it
    draws: the numbers are the same every time.
    """

    model: Any
    inputs: list[Any]
    loss: Callable[[Any], Any] | None = None
    naming: Naming = field(default_factory=Naming)
    randomness: Callable[[], AbstractContextManager[Any]] = nullcontext
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """The model's outputs."""
        return self.model(*self.inputs, **self.keywords)
