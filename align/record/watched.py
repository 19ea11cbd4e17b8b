"""Parameters that are looked at for changes: what writes into them, and into their gradients, returns nothing."""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np

from align.sides import Side

Layout = Callable[[np.ndarray], np.ndarray]


class Watched:
    """A parameter, the layout in which it is judged, and the event that made its gradient."""

    def __init__(self, side: Side, tensor: Any, layout: Layout | None = None) -> None:
        self.tensor, self.layout = tensor, layout
        self.gradient: int | None = None
        self._side = side
        self._seen: dict[str, tuple[tuple[int, int], np.ndarray]] = {}  # of both, their memory
        self._state = self._checksums()

    def written(self) -> list[str]:
        """Which have changed since they were last looked at: "tensor", "gradient"."""
        before, self._state = self._state, self._checksums()
        return [name for name, now in self._state.items() if now != before[name]]

    def _checksums(self) -> dict[str, int | None]:
        """Of all bytes: not all that writes to a tensor counts what it writes."""
        return {
            "tensor": self._checksum("tensor", self.tensor),
            "gradient": self._checksum("gradient", getattr(self.tensor, "grad", None)),
        }

    def _checksum(self, name: str, tensor: Any) -> int | None:
        if tensor is None:
            self._seen.pop(name, None)
            return None
        memory = self._side.memory(tensor)
        if name not in self._seen or self._seen[name][0] != memory:
            # An array on a tensor's memory keeps that from being given to another.
            view = self._side.view(tensor) if memory[1] else None
            if view is None or not view.flags.c_contiguous:
                self._seen.pop(name, None)
                return crc32(self._side.to_numpy(tensor).tobytes())
            self._seen[name] = memory, view
        return crc32(self._seen[name][1].data)
