"""Which parameter of a port is which of the reference's, where names do not say it.

Both models are given weights that depend on a tensor's shape alone, and run forwards and backwards once in float64.
Whatever is called what, such weights are the same in both, so a parameter's gradient, which holds all that reached it
forwards and backwards, tells the two apart that have one shape. Where a bug spoils the values, order decides, and the
row says so. Shapes are the reference's layout: nothing is transposed to make it fit.
"""

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.record.naming import PLUS, parts

# Correct ports agree to some 1e-12 of a gradient's size in float64; another parameter's gradient differs by as much as
# it is long. Between the two lies room for whatever rounding a deep network collects.
NEAR = 1e-6


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model: `owner` is the class of its module, `print` a sketch of its gradient, None without one."""

    name: str
    shape: tuple[int, ...]
    kind: str
    owner: str
    print: tuple[float, ...] | None = None

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def last(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def role(self) -> str:
        """The owner's class without what the frameworks spell in two ways: Conv2d and Conv2D are `conv`."""
        return re.sub(r"\d[dD]$", "", self.owner).lower()


@dataclass(frozen=True)
class Pairing:
    """`parameters`: the port's name, or names, by the reference's; `matched_by`: how each was found."""

    parameters: Mapping[str, str]
    matched_by: Mapping[str, str]
    unpaired: Mapping[str, tuple[str, ...]]  # by side, what has no counterpart

    def as_mapping(self, modules: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
        return {"modules": modules, "parameters": self.parameters, "matched_by": self.matched_by}


def from_json(rows: Iterable[Mapping[str, Any]]) -> list[Tensor]:
    return [Tensor(r["name"], tuple(r["shape"]), r["kind"], r["owner"], r["print"] and tuple(r["print"])) for r in rows]


def pair(reference: Iterable[Tensor], port: Iterable[Tensor], chosen: Mapping[str, str]) -> Pairing:
    """Pair the tensors of two models; `chosen` is what a user's mapping says, the port's names by the reference's."""
    matcher = _Matcher(list(reference), list(port))
    for theirs, own in chosen.items():
        matcher.take(theirs, own, "override")
    if {t.name for t in matcher.theirs} == {t.name for t in matcher.ours}:
        matcher.by_name(lambda theirs, ours: True)
    else:
        matcher.by_name(_near)
        matcher.by_value()
        matcher.by_name(lambda theirs, ours: theirs.shape == ours.shape)
        matcher.by_owner()
        matcher.in_order()
        matcher.fused()
    left = {"torch": matcher.theirs, "paddle": matcher.ours}
    return Pairing(matcher.parameters, matcher.how, {side: tuple(t.name for t in some) for side, some in left.items()})


class _Matcher:
    """What is not paired yet, in the order of registration, and what is."""

    def __init__(self, theirs: list[Tensor], ours: list[Tensor]) -> None:
        self.theirs, self.ours = theirs, ours
        self.parameters: dict[str, str] = {}
        self.how: dict[str, str] = {}
        self._owners: dict[str, str] = {}  # the port's module by the reference's

    def take(self, theirs: str, own: str, how: str) -> None:
        self.parameters[theirs], self.how[theirs] = own, how
        if PLUS not in theirs + own:
            self._owners.setdefault(theirs.rpartition(".")[0], own.rpartition(".")[0])
        self.theirs = [tensor for tensor in self.theirs if tensor.name not in parts(theirs)]
        self.ours = [tensor for tensor in self.ours if tensor.name not in parts(own)]

    def by_name(self, agree: Callable[[Tensor, Tensor], bool]) -> None:
        named = {tensor.name: tensor for tensor in self.ours}
        for tensor in self.theirs:
            own = named.get(tensor.name)
            if own and agree(tensor, own):
                self.take(tensor.name, own.name, "name")

    def by_value(self) -> None:
        """Those whose gradients agree; where several do, as many on both sides, in their order: they are equals."""
        while found := next((group for group in map(self._alike, self.theirs) if group), None):
            for theirs, own in zip(*found, strict=True):
                self.take(theirs.name, own.name, "value")

    def _alike(self, tensor: Tensor) -> tuple[list[Tensor], list[Tensor]] | None:
        ours = [own for own in self.ours if _near(tensor, own)]
        theirs = [other for other in self.theirs if ours and _near(other, ours[0])]
        return (theirs, ours) if ours and len(theirs) == len(ours) else None

    def by_owner(self) -> None:
        """What a paired module holds beside: running statistics, a bias whose gradient is rounding."""
        for tensor in self.theirs:
            if tensor.module in self._owners:
                prefix = self._owners[tensor.module]
                wanted = f"{prefix}.{tensor.last}" if prefix else tensor.last
                own = next((own for own in self.ours if own.name == wanted and own.shape == tensor.shape), None)
                if own:
                    self.take(tensor.name, own.name, self._how_of(tensor.module))

    def _how_of(self, module: str) -> str:
        return next(how for name, how in self.how.items() if name.rpartition(".")[0] == module)

    def in_order(self) -> None:
        """The k-th of an owner's class, last name and shape on one side with the k-th on the other, if as many."""
        keys: list[Callable[[Tensor], Hashable]] = [
            lambda tensor: (tensor.kind, tensor.role, tensor.last, tensor.shape),
            lambda tensor: (tensor.kind, tensor.shape),
        ]
        for key in keys:
            theirs, ours = _grouped(self.theirs, key), _grouped(self.ours, key)
            for what, group in theirs.items():
                if len(group) == len(ours.get(what, ())):
                    for tensor, own in zip(group, ours[what], strict=True):
                        self.take(tensor.name, own.name, "order")

    def fused(self) -> None:
        """One tensor on one side, equal parts of it under modules beside one another on the other."""
        for whole, pieces, turned in ((self.theirs, self.ours, False), (self.ours, self.theirs, True)):
            groups = [g for g in _grouped(pieces, _beside).values() if len(g) > 1 and len({t.shape for t in g}) == 1]
            for tensor in whole:
                group = next((g for g in groups if _makes_up(g, tensor)), None)
                if group:
                    groups.remove(group)
                    joined = PLUS.join(piece.name for piece in group)
                    theirs, own = (joined, tensor.name) if turned else (tensor.name, joined)
                    self.take(theirs, own, "order")


def _near(one: Tensor, other: Tensor) -> bool:
    """Whether both are of one shape and their gradients agree; a gradient of zero says nothing."""
    if one.shape != other.shape or one.kind != other.kind or one.print is None or other.print is None:
        return False
    first, second = np.array(one.print), np.array(other.print)
    size = max(np.linalg.norm(first), np.linalg.norm(second))
    return bool(0 < size < np.inf and np.linalg.norm(first - second) <= NEAR * size)


def _grouped(tensors: Collection[Tensor], key: Callable[[Tensor], Hashable]) -> dict[Hashable, list[Tensor]]:
    groups: dict[Hashable, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(key(tensor), []).append(tensor)
    return groups


def _beside(tensor: Tensor) -> Hashable:
    """What the parts of a fused projection share: the module around them, and what they are in their own."""
    return tensor.module.rpartition(".")[0], tensor.last, tensor.kind


def _makes_up(pieces: list[Tensor], whole: Tensor) -> bool:
    if not whole.shape or whole.kind != pieces[0].kind or whole.shape[1:] != pieces[0].shape[1:]:
        return False
    return sum(piece.shape[0] for piece in pieces if piece.shape) == whole.shape[0]
