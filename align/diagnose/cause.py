"""What a cause is, and what a hypothesis about one must bring to be put to the proof."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from align.locate.divergence import Where


@dataclass(frozen=True)
class Cause:
    """A proven cause. `text` is a sentence with both values, `explained` the fraction of the error that it is (0 to 1),
    or None where both values stand in the recordings themselves and nothing had to be made again.

    `change` is what to write instead; `line` the line that defines a wrong attribute, where that is the cause;
    `family` the one that proposed it.
    """

    id: str
    text: str
    explained: float | None
    change: str | None = None
    line: Where | None = None
    family: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "text": self.text, "explained": self.explained, "change": self.change}


@dataclass(frozen=True)
class Treatment:
    """What is done to the port while it is replayed.

    `attributes` of one of its modules, by its dotted path, are set; `attached` lets gradients through what stops them:
    `operations` (detach, no_grad, stop_gradient) or `parameters` (frozen ones).
    """

    module: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    attached: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"module": self.module, "attributes": dict(self.attributes), "attached": self.attached}


@dataclass(frozen=True)
class Hypothesis:
    """A possible cause, and how it is applied: numerically, or by a treatment of the port.

    Numerically, `made` must equal `wanted`. Either the port's tensor is corrected and must be the reference's, or,
    where a cause loses information, the reference's is spoilt and must be the port's. `fitted` counts the numbers in it
    that were fitted to these very tensors: with as many elements as that, a match would say nothing.
    """

    id: str
    text: str  # "LayerNorm epsilon 1e-05 in the port, 1e-06 in the reference"; what it explains is added
    made: np.ndarray | None = None
    wanted: np.ndarray | None = None
    treatment: Treatment | None = None
    fitted: int = 0
    read: bool = False  # both values are recorded, and differ: that is all there is to it
    alike: bool = False  # `made` and `wanted` are samples: equal if the tests of `init` find one distribution
    change: str | None = None
    line: Where | None = None
    family: str = ""  # set by whoever asked it
