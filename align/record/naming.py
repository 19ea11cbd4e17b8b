"""Which tensors of a side's model are which of the reference's: one each, several joined, or one split.

A fused projection on one side and its parts on the other are told with ` + ` between the names of the parts, which lie
along the first axis in the reference's layout: `in_proj_weight = q_proj.weight + k_proj.weight + v_proj.weight`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from align.errors import UsageError

PLUS = " + "
Array = TypeVar("Array", bound=np.ndarray | None)


def parts(name: str) -> list[str]:
    return name.split(PLUS)


@dataclass(frozen=True)
class Naming:
    """`own` holds the side's own name, or names, by the reference's; `shapes` the reference's shapes by its names."""

    own: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def reference(self) -> dict[str, str]:
        """The reference's name, or names, by each of the side's own."""
        return {part: theirs for theirs, own in self.own.items() for part in parts(own)}

    def to_reference(self, tensors: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray | None]:
        """The side's tensors under the reference's names; those that are nobody's counterpart keep their own.

        Where some of several joined ones are None, zeros stand for these; None where all are.
        """
        named: dict[str, np.ndarray | None] = {}
        used = set()
        for theirs, own in self.own.items():
            held = [name for name in parts(own) if name in tensors]
            if not held:
                continue
            used.update(held)
            if len(parts(theirs)) > 1:
                named.update(zip(parts(theirs), self._split(theirs, tensors[own]), strict=True))
            else:
                named[theirs] = _joined([tensors[name] for name in held])
        return named | {name: array for name, array in tensors.items() if name not in used}

    def to_own(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The reference's arrays under the side's own names, as far as they have a counterpart."""
        found: dict[str, np.ndarray] = {}
        for theirs, own in self.own.items():
            whole = _joined([arrays[name] for name in parts(theirs)])
            assert whole is not None
            names = parts(own)
            if len(names) > 1 and whole.shape[0] % len(names):
                raise UsageError(f"{theirs} has {whole.shape[0]} rows, which are not {len(names)} equal parts: {own}")
            pieces = [whole] if len(names) == 1 else np.split(whole, len(names))
            found.update(zip(names, pieces, strict=True))
        return found

    def _split(self, theirs: str, array: np.ndarray | None) -> Iterator[np.ndarray | None]:
        start = 0
        for name in parts(theirs):
            rows = self.shapes[name][0]
            yield None if array is None else array[start : start + rows]
            start += rows


def _joined(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    if len(arrays) == 1:
        return arrays[0]
    known = next((array for array in arrays if array is not None), None)
    if known is None:
        return None
    return np.concatenate([np.zeros_like(known) if array is None else array for array in arrays])
