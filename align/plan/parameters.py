"""Which parameter of a port is which of the reference's, where names do not say it.

Both models are given weights that depend on a tensor's shape alone, and run forwards and backwards once in float64.
Whatever is called what, such weights are the same in both, so a parameter's gradient, which holds all that reached it
forwards and backwards, tells the two apart that have one shape. Where a bug spoils the gradients, what goes into the
parameter's module is still right before the bug; behind it the order of calls decides, and the row says so. Shapes are
the reference's layout: nothing is transposed to make it fit.
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
    """One tensor of a model: `owner` is the class of its module, `print` a sketch of its gradient, None without one.

    `fed` is a sketch of what goes into its module.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    owner: str
    print: tuple[float, ...] | None = None
    fed: tuple[float, ...] | None = None
    parts: tuple[tuple[float, ...], ...] = ()  # sketches of the gradients of the projections that it may be made of

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
    return [
        Tensor(
            row["name"],
            tuple(row["shape"]),
            row["kind"],
            row["owner"],
            _tuple(row["print"]),
            _tuple(row["fed"]),
            tuple(map(tuple, row["parts"])),
        )
        for row in rows
    ]


def _tuple(values: Iterable[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def pair(reference: Iterable[Tensor], port: Iterable[Tensor], chosen: Mapping[str, str]) -> Pairing:
    """Pair the tensors of two models; `chosen` is what a user's mapping says, the port's names by the reference's."""
    matcher = _Matcher(list(reference), list(port))
    for theirs, own in chosen.items():
        matcher.take(theirs, own, "override")
    if {t.name for t in matcher.theirs} == {t.name for t in matcher.ours}:
        matcher.by_name(lambda theirs, ours: True)
    else:
        matcher.by_name(_near)
        matcher.by_value(_near)
        matcher.by_name(lambda theirs, ours: theirs.shape == ours.shape)
        matcher.by_owner()
        matcher.by_value(_fed_alike)
        matcher.by_owner()
        matcher.fused()
        matcher.in_order()
    left = {"torch": matcher.theirs, "paddle": matcher.ours}
    return Pairing(matcher.parameters, matcher.how, {side: tuple(t.name for t in some) for side, some in left.items()})


class _Matcher:
    """What is not paired yet, in the order of calls, and what is."""

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

    def by_value(self, agree: Callable[[Tensor, Tensor], bool]) -> None:
        """Those whose values agree; where several do, as many on both sides, in their order: they are equals."""
        for tensor in list(self.theirs):
            ours = [own for own in self.ours if agree(tensor, own)]
            theirs = [other for other in self.theirs if ours and agree(other, ours[0])]
            if tensor in theirs and len(theirs) == len(ours):
                for one, own in zip(theirs, ours, strict=True):
                    self.take(one.name, own.name, "value")

    def by_owner(self) -> None:
        """What a paired module holds beside: running statistics, a bias whose gradient is rounding."""
        for tensor in list(self.theirs):
            if tensor.module in self._owners:
                prefix = self._owners[tensor.module]
                wanted = f"{prefix}.{tensor.last}" if prefix else tensor.last
                own = next((own for own in self.ours if own.name == wanted and own.shape == tensor.shape), None)
                if own:
                    self.take(tensor.name, own.name, self._how_of(tensor.module))

    def _how_of(self, module: str) -> str:
        return next(how for name, how in self.how.items() if name.rpartition(".")[0] == module)

    def in_order(self) -> None:
        """The k-th of an owner's class, last name and shape on one side with the k-th on the other, if as many.

        The surest comes first, and each pair of modules brings all that it holds: the fewest of one kind, and of
        these the tensors of most axes.
        """
        keys: list[Callable[[Tensor], Hashable]] = [
            lambda tensor: (tensor.kind, tensor.role, tensor.last, tensor.shape),
            lambda tensor: (tensor.kind, tensor.shape),
        ]
        for key in keys:
            while found := self._surest(key):
                for tensor, own in zip(*found, strict=True):
                    self.take(tensor.name, own.name, "order")
                self.by_owner()

    def _surest(self, key: Callable[[Tensor], Hashable]) -> tuple[list[Tensor], list[Tensor]] | None:
        theirs, ours = _grouped(self.theirs, key), _grouped(self.ours, key)
        groups = [(group, ours[what]) for what, group in theirs.items() if len(group) == len(ours.get(what, ()))]
        return min(groups, key=lambda group: (len(group[0]), -len(group[0][0].shape)), default=None)

    def fused(self) -> None:
        """One weight on one side, equal parts of it in modules beside one another.

        Their gradients tell them, or that the same values go into them. Their biases go with them; a bias alone is too
        little to tell by.
        """
        for turned in (False, True):
            for tensor in [tensor for tensor in (self.ours if turned else self.theirs) if tensor.parts]:
                beside = _grouped(self.theirs if turned else self.ours, _beside).values()
                if chosen := next((found for group in beside if (found := _parts_of(tensor, group))), None):
                    join = self._join_with_biases if len(tensor.shape) > 1 else self._join
                    join(tensor, chosen, turned, "value")
            pieces, whole = (self.theirs, self.ours) if turned else (self.ours, self.theirs)
            groups = [group for beside in _grouped(pieces, _beside).values() for group in _fed_together(beside)]
            for tensor in [tensor for tensor in whole if len(tensor.shape) > 1]:
                fitting = [group for group in groups if _makes_up(group, tensor)]
                group = next((g for g in fitting if _equal(g[0].fed, tensor.fed)), fitting[0] if fitting else None)
                if group:
                    groups.remove(group)
                    how = "value" if _equal(group[0].fed, tensor.fed) else "order"
                    self._join_with_biases(tensor, group, turned, how)

    def _join_with_biases(self, whole: Tensor, pieces: list[Tensor], turned: bool, how: str) -> None:
        there, here = (self.theirs, self.ours) if turned else (self.ours, self.theirs)
        biases, bias = [_bias(there, piece) for piece in pieces], _bias(here, whole)
        self._join(whole, pieces, turned, how)
        if bias and all(biases):
            self._join(bias, [one for one in biases if one], turned, how)

    def _join(self, whole: Tensor, pieces: list[Tensor], turned: bool, how: str) -> None:
        joined = PLUS.join(piece.name for piece in pieces)
        theirs, own = (joined, whole.name) if turned else (whole.name, joined)
        self.take(theirs, own, how)


def _parts_of(whole: Tensor, pieces: list[Tensor]) -> list[Tensor]:
    """Those of the pieces whose gradients are the parts of the whole's, in its order; none where one is missing.

    A part without a gradient to speak of, as a key's bias before a softmax, is any piece that has none either.
    """
    least = NEAR * max(float(np.linalg.norm(part)) for part in whole.parts)
    free, chosen = [p for p in pieces if p.kind == whole.kind and _makes_up([p] * len(whole.parts), whole)], []
    for part in whole.parts:
        found = next((piece for piece in free if _equal(piece.print, part) or _silent(piece.print, part, least)), None)
        if found is None:
            return []
        free.remove(found)
        chosen.append(found)
    return chosen


def _silent(one: tuple[float, ...] | None, other: tuple[float, ...], least: float) -> bool:
    return one is not None and max(float(np.linalg.norm(sketch)) for sketch in (one, other)) < least


def _bias(tensors: Iterable[Tensor], weight: Tensor) -> Tensor | None:
    """The bias that stands beside a weight: `bias` beside `weight`, `in_proj_bias` beside `in_proj_weight`."""
    last = weight.last.replace("weight", "bias")
    named = (tensor for tensor in tensors if (tensor.module, tensor.last) == (weight.module, last))
    return next((tensor for tensor in named if tensor.shape == weight.shape[:1]), None)


def _near(one: Tensor, other: Tensor) -> bool:
    """Whether both are of one shape and their gradients agree; a gradient of zero says nothing."""
    return one.shape == other.shape and one.kind == other.kind and _equal(one.print, other.print)


def _fed_alike(one: Tensor, other: Tensor) -> bool:
    """Whether both are one thing in modules of one kind that the same values go into."""
    told = [(tensor.kind, tensor.role, tensor.last, tensor.shape) for tensor in (one, other)]
    return told[0] == told[1] and _equal(one.fed, other.fed)


def _equal(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> bool:
    if one is None or other is None or len(one) != len(other):
        return False
    first, second = np.array(one), np.array(other)
    size = max(np.linalg.norm(first), np.linalg.norm(second))
    return bool(0 < size < np.inf and np.linalg.norm(first - second) <= NEAR * size)


def _grouped(tensors: Collection[Tensor], key: Callable[[Tensor], Hashable]) -> dict[Hashable, list[Tensor]]:
    groups: dict[Hashable, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(key(tensor), []).append(tensor)
    return groups


def _beside(tensor: Tensor) -> Hashable:
    """What the parts of a fused projection share: the module around them, and what they are in their own."""
    return tensor.module.rpartition(".")[0], tensor.last, tensor.kind, tensor.shape


def _fed_together(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Those whose modules are given the same."""
    groups: list[list[Tensor]] = []
    for tensor in tensors:
        group = next((group for group in groups if _equal(group[0].fed, tensor.fed)), None)
        if group is None:
            groups.append([tensor])
        else:
            group.append(tensor)
    return [group for group in groups if len(group) > 1]


def _makes_up(pieces: list[Tensor], whole: Tensor) -> bool:
    if not whole.shape or whole.kind != pieces[0].kind or whole.shape[1:] != pieces[0].shape[1:]:
        return False
    return sum(piece.shape[0] for piece in pieces) == whole.shape[0]
