"""What a family may look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from align.locate.modules import LIMIT, own_error


@dataclass(frozen=True)
class Evidence:
    """One tensor that differs, in float64, and what is at hand about it; a step's own evidence has more fields.

    `values` are the reference's own arrays by a name to be told (traced values, parameters, inputs): a difference may
    be one of them. `numbers` are numbers that a factor may turn out to be, by what they are called ("batch size").
    """

    step: str
    name: str
    port: np.ndarray | None
    reference: np.ndarray | None
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    limit: float = LIMIT  # relative error that counts as noise
    gradient: bool = False
    unlike: bool = False  # made by operations that do not correspond: terms that would make up for that prove nothing

    def before(self) -> float:
        """The relative error that is to be explained."""
        if self.port is None or self.reference is None:
            return float("inf")
        return own_error(self.port, self.reference)

    def untreated(self) -> float:
        """The same as `after` measures it, without a treatment."""
        return self.before()

    def after(self, replay: Mapping[str, np.ndarray]) -> float:
        """The same of a replay of the port with a treatment."""
        if self.name not in replay or self.reference is None:
            return float("inf")
        return own_error(replay[self.name], self.reference)

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Both tensors as float64, if both are there, floating, of one shape, finite, and not empty."""
        port, reference = self.port, self.reference
        if port is None or reference is None or port.shape != reference.shape or not port.size:
            return None
        if port.dtype.kind != "f" or reference.dtype.kind != "f":
            return None
        port, reference = port.astype(np.float64), reference.astype(np.float64)
        return (port, reference) if np.isfinite(port).all() and np.isfinite(reference).all() else None
