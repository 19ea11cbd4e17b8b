"""What an object of a framework was told: an optimizer's constants, a schedule's counts."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from align.locate.line_pair import Blame, Pair
from align.locate.line_side import Side

COMPUTED = ("BinOp", "UnaryOp", "AugAssign")
DEEPEST = 6  # containers and objects within what a constructor is given


class Objects(Pair):
    """Compares what goes into objects that do not show what they make of it."""

    def constructed_otherwise(self, row: str) -> Blame | None:
        """Of the object that wrote a row: a number its constructor was given, where the reference's was given another.

        `row` may be one that the port lacks. Numbers that the one side spells out, and the other leaves at their
        default, say nothing: one must be lacking, and another one be there instead, or the row be gone.
        """
        ours, theirs = self.port.constructors, self.reference.constructors
        there = [n for n in theirs if n < self.reference.emissions[row].after]
        if not there or len(ours) != len(theirs):
            return None
        mine, other = ours[len(there) - 1], there[-1]
        given, expected = self._numbers_of(self.port, mine), self._numbers_of(self.reference, other)
        told, wanted = ([value for value, _ in entries] for entries in (given, expected))
        lacking = [value for value in wanted if value and value not in told and value not in self._told_to_own]
        if not lacking:
            return None
        for value, holder in given:
            if value not in wanted or told.count(value) > wanted.count(value):
                return Blame(holder, other, f"is given {value:.6g}, and not {lacking[0]:.6g} as in the reference")
        if row in self.port.emissions:
            return None
        return Blame(mine, other, f"is not given {lacking[0]:.6g} as in the reference")

    def _numbers_of(self, side: Side, number: int) -> list[tuple[float, int]]:
        if (side, number) not in self._numbers:
            self._numbers[side, number] = list(self._given_to(side, number))
        return self._numbers[side, number]

    @cached_property
    def _numbers(self) -> dict[tuple[Side, int], list[tuple[float, int]]]:
        return {}

    @cached_property
    def _told_to_own(self) -> set[float]:
        """The numbers that constructors of the port's own classes were given: their objects may hold them."""
        bound = (b for b in self.port.trace.bindings if b.function.endswith(".__init__"))
        return {number for b in bound if (number := _number(self.port, b.event)) is not None}

    def _given_to(self, side: Side, number: int, depth: int = DEEPEST) -> Iterator[tuple[float, int]]:
        """The floating numbers that went into an object, each with the innermost own expression that holds it."""
        held = side.trace.events[number]
        for inner in [member for _, member in held.members] or held.inputs:
            event = side.trace.events[inner]
            value = _number(side, inner)
            if value is not None:
                yield value, number
            elif depth and (event.kind in ("container", "opaque") or event.members):
                for value, holder in self._given_to(side, inner, depth - 1):
                    yield value, holder if side.is_own(holder) else number

    def counted_otherwise(self, here: int) -> Blame | None:
        """A whole number that the port computes on the way to a wrong one, and the reference does not.

        There must be a function of that name in the reference; or the wrong number be right elsewhere, so that not what
        is computed from the count is wrong.
        """
        event = self.port.trace.events[here]
        if event.print is None or event.print.size != 1 or event.print.integer:
            return None
        for number in sorted(self._counts(here)):
            if self.reference.of_role(self.port.role(number)):
                continue
            if self.port.matched[here] or self._has_function(number):
                return Blame(number, self.nearest(number), "counts otherwise than the reference")
        return None

    def _counts(self, here: int) -> set[int]:
        """The whole numbers on the way that were computed, or, where an object tells one, that are the same."""
        events, found = self.port.trace.events, set()
        for number in self.port.slice(here):
            value = events[number].print
            if value is None or value.size != 1 or not value.integer:
                continue
            told = self.port.role(number)[1] == "Attribute"
            made = self.port.computed_before(number, COMPUTED) if told else number
            if made is not None and self.port.role(made)[1] in COMPUTED and self.port.is_own(made):
                found.add(made)
        return found

    @cached_property
    def _functions(self) -> set[tuple[str, str]]:
        return {(Path(node.file).name, node.function) for node in self.reference.trace.nodes}

    def _has_function(self, number: int) -> bool:
        node = self.port.trace.nodes[self.port.trace.events[number].node]
        key = Path(node.file).name, node.function
        return key in self._functions


def _number(side: Side, number: int) -> float | None:
    """An event's plain floating number, to nine digits: float32 is as good as float64 here."""
    found = side.trace.events[number].print
    return None if found is None or found.size != 1 or found.integer else float(f"{found.moments[0]:.9g}")
