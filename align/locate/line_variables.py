"""Names that both sides share: variables that hold other values, and values that are not made, or dropped."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from align.locate.line_objects import Objects
from align.locate.line_pair import OTHER, Blame, code_of
from align.locate.line_rows import Rows
from align.locate.line_side import Side
from align.locate.recognise import same
from align.record.fingerprint import Fingerprint
from align.record.line_trace import Bound, LineTrace
from align.record.source import OWN

Bindings = dict[tuple[str, str, str], list[tuple[int, Bound]]]


class Variables(Rows, Objects):
    """Tells what the values alone cannot: they are the reference's, but not in this place."""

    def __init__(self, port: LineTrace, reference: LineTrace) -> None:
        super().__init__(port, reference)
        ours, theirs = self._bindings(self.port), self._bindings(self.reference)
        self._pairs = {key: (bound, others) for key, bound in ours.items() if (others := _namesake(key, theirs))}

    def bound_otherwise(self, way: Collection[int], held: Collection[int] = ()) -> Blame | None:
        """The first variable, in functions that both sides have, that holds another of the reference's values.

        Only of the events on the way, and only where the value itself could not tell; or of those containers (`held`)
        that hold nothing but such values.
        """
        events, nodes = self.port.trace.events, self.port.trace.nodes
        best: tuple[int, Blame] | None = None
        for bound, others in self._pairs.values():
            if len(bound) != len(others) and not (self.port.trace.raised and len(bound) < len(others)):
                continue
            for (order, mine), (_, other) in zip(bound, others, strict=False):
                known = mine.event in way and self.port.matched[mine.event]
                if not (known or (mine.event in held and self._holds_known(mine.event))) or (best and order > best[0]):
                    continue
                # The harness's, or from elsewhere.
                given = nodes[events[mine.event].node].op == "Name" or not self.port.is_own(mine.event)
                if self.differ(mine.event, other.event) and not (given and mine.node is None):
                    given = given or self._left_at_default(mine, other)
                    inner = (mine.event, other.event) if given else self._inside(mine.event, other.event)
                    best = order, Blame(*inner, OTHER, node=mine.node if given else None)
        return best and best[1]

    def _holds_known(self, number: int) -> bool:
        return all(self.port.matched[member] for _, member in self.port.trace.events[number].members)

    def _left_at_default(self, mine: Bound, other: Bound) -> bool:
        """Whether an argument has the value that it has where a call gives none, and the reference's call gives one."""
        left, given = self.port.role(mine.event)[1] == "Held", self.reference.role(other.event)[1] != "Held"
        return left and given and mine.node is not None

    def dropped(self, expected: int | None) -> Blame | None:
        """A value that the reference makes a wrong row of, and that the port makes and does nothing with."""
        if expected is None or not self.port.unused:
            return None
        wanted = {self.reference.trace.events[n].print for n in self.reference.slice(expected)}
        places = [place for found in wanted if found and (place := self._unused_as(found)) is not None]
        if not places:
            return None
        why = "makes a value that is dropped, and that the reference goes on with"
        return Blame(self.port.unused[min(places)], None, why)

    def _unused_as(self, wanted: Fingerprint) -> int | None:
        """Which of the values that the port drops is the first that is this one."""
        if wanted not in self._dropped_as:
            prints = (self.port.trace.events[n].print for n in self.port.unused)
            self._dropped_as[wanted] = next((n for n, mine in enumerate(prints) if same(mine, wanted)), None)
        return self._dropped_as[wanted]

    @cached_property
    def _dropped_as(self) -> dict[Fingerprint, int | None]:
        return {}

    @cached_property
    def handed_nothing(self) -> Blame | None:
        """The call of a function that hands it None for an argument that is a number in the reference."""
        for bound, others in self._pairs.values():
            for (_, mine), (_, other) in zip(bound, others, strict=False):
                event, expected = self.port.trace.events[mine.event], self.reference.trace.events[other.event]
                nothing = event.kind == "flag" and event.value is None and expected.kind == "number"
                if nothing and mine.node is not None and self.port.trace.nodes[mine.node].op == "Call":
                    return Blame(mine.event, other.event, f"hands over no {mine.name}", node=mine.node)
        return None

    def configured_otherwise(self, way: Collection[int]) -> Blame | None:
        """The first argument that is another text than in the reference: a mode, say, or a kind of interpolation.

        That is one on the way, or one that the port's source spells out.
        """
        best: tuple[int, Blame] | None = None
        for bound, others in self._pairs.values():
            for (order, mine), (_, other) in zip(bound, others, strict=False) if len(bound) == len(others) else ():
                told, expected = self.port.trace.events[mine.event], self.reference.trace.events[other.event]
                fixed = mine.event in way or self.port.role(mine.event)[1] in ("Held", "Constant")
                differs = told.kind == expected.kind == "text" and told.value != expected.value
                if fixed and differs and self.port.is_own(mine.event) and (best is None or order < best[0]):
                    node = mine.node if self._left_at_default(mine, other) else None
                    why = f"is {told.value!r}, in the reference {expected.value!r}"
                    best = order, Blame(self._spelt_out(mine.event), other.event, why, node=node)
        return best and best[1]

    def _spelt_out(self, number: int) -> int:
        """Where a text was written that an expression only chose."""
        event = self.port.trace.events[number]
        same_text = (n for n in self.port.upstream(number) if self.port.trace.events[n].value == event.value)
        source = next(same_text, None)
        return number if source is None else self._spelt_out(source)

    def _inside(self, mine: int, other: int) -> tuple[int, int]:
        """Of two expressions that are put together alike, the innermost parts that differ."""
        ours, theirs = self.port.trace.events, self.reference.trace.events
        while self.port.role(mine) == self.reference.role(other):
            pairs = list(zip(ours[mine].inputs, theirs[other].inputs, strict=False))
            unequal = [(a, b) for a, b in pairs if self.differ(a, b) or self.told_otherwise(a, b)]
            if len(ours[mine].inputs) != len(theirs[other].inputs) or not unequal:
                break
            mine, other = unequal[0]
        return mine, other

    def _bindings(self, side: Side) -> Bindings:
        """In the order of their making, by file, function and name; of libraries the arguments alone."""
        found: Bindings = {}
        own, nodes = set(side.trace.own), side.trace.nodes
        for order, bound in enumerate(side.trace.bindings):
            argument = bound.node is None or nodes[bound.node].function != bound.function
            if bound.file in own or (argument and not bound.file.startswith(OWN)):
                found.setdefault((Path(bound.file).name, bound.function, bound.name), []).append((order, bound))
        return found

    def left_out(self, row: str) -> Blame | None:
        """Of a row that only the reference has: what the function that puts it into a container decided otherwise here.

        That is a variable of another value, a truth value, or else the line most like that which puts it there.
        """
        reference = self.reference.trace
        if configured := self.constructed_otherwise(row):
            return configured
        names = parts(row)
        for name in names:
            if lost := self.lost(name):
                return lost
        put = [n for name in names for n, _ in self.reference.containers(name) if self.reference.is_own(n)]
        if not put:
            return None
        there = reference.nodes[reference.events[put[0]].node]
        key = Path(there.file).name, there.function
        inside = {b.event for b in self.port.trace.bindings if (Path(b.file).name, b.function) == key}
        return self.bound_otherwise(inside) or self.branched(key) or self._most_like(put[0])

    def branched(self, function: tuple[str, str]) -> Blame | None:
        """The first truth value of a function, by the name of its file and its own, that is another on the other side.

        Or the last that both have, if the reference goes on with something else in the same condition.
        """
        ours, theirs = (side.flags.get(function, []) for side in (self.port, self.reference))
        before: Blame | None = None
        for mine, other in zip(ours, theirs, strict=False):
            if self.port.role(mine)[1:] != self.reference.role(other)[1:]:
                goes_on = before and before.reference is not None and self._on_one_line(before.reference, other)
                return before if goes_on else None
            before = Blame(mine, other, "decides otherwise than the reference")
            if self.told_otherwise(mine, other):
                return before
        return None

    def _on_one_line(self, first: int, second: int) -> bool:
        trace = self.reference.trace
        one, other = (trace.nodes[trace.events[number].node] for number in (first, second))
        return (one.file, one.line) == (other.file, other.line)

    def run_otherwise(self, here: int) -> Blame | None:
        """What was decided otherwise in a function of which the port runs a line more often than the reference."""
        nearest = self.nearest(here)
        if nearest is None:
            return None
        ours, theirs = self.port.trace, self.reference.trace
        node = ours.nodes[ours.events[here].node]
        there = theirs.nodes[theirs.events[nearest].node]
        if node.function != there.function or Path(node.file).name != Path(there.file).name:
            return None
        more = self.port.times[ours.events[here].node] > self.reference.times[theirs.events[nearest].node]
        return self.branched((Path(node.file).name, node.function)) if more else None

    def left_undone(self, made: int, expected: int | None) -> Blame | None:
        """Of a value that the reference has too, and makes the right one of: the line most like the one that does."""
        value = self.port.trace.events[made].print
        if expected is None or value is None or not self.port.matched[made] or not self.reference.is_own(expected):
            return None
        if self.alike(made, expected):
            return None  # it does the same to something else
        events = self.reference.trace.events
        near = [n for n in self.reference.slice(expected) if self._on_one_line(n, expected)]
        read = {number for n in near for number in (n, *events[n].inputs)} - {expected}
        if not any(same(events[number].print, value) for number in read):
            return None
        return self._most_like(expected, "does nothing with a value of which the reference makes the right one")

    def not_done_to(self, mine: int, other: int | None) -> Blame | None:
        """Of what an object wrote by reading the wrong one of the reference's values: what the port did not do to that.

        That is the line most like the reference's, which made the right one.
        """
        while other is not None and self.alike(mine, other) and self.port.role(mine)[1] == "Write":
            read, expected = self.port.trace.events[mine].inputs, self.reference.trace.events[other].inputs
            if len(read) != len(expected):
                return None  # which is which cannot be told
            pairs = zip(read, expected, strict=True)
            wrong = next(((a, b) for a, b in pairs if self.differ(a, b)), None)
            if wrong is None or not self.port.matched[wrong[0]]:
                return None
            mine, other = wrong
            if self.port.role(mine) != self.reference.role(other) and self.reference.is_own(other):
                return self._most_like(other, "does not do to a value what the reference does")
        return None

    def _most_like(self, there: int, why: str = "is the nearest to the line that makes this row there") -> Blame | None:
        """The port's line that reads most like one of the reference, in a function of the same name."""
        node = self.reference.trace.nodes[self.reference.trace.events[there].node]
        here = self.nearest_own(node.function, code_of(node.file, node.line, node.end_line))
        return None if here is None else Blame(0, there, why, node=here)


def _namesake(key: tuple[str, str, str], theirs: Bindings) -> list[tuple[int, Bound]]:
    """The variable of the same file and function; or of a method of that name of a class of that name, anywhere."""
    _, function, name = key
    if key in theirs or "." not in function:
        return theirs.get(key, [])
    found = [bound for (_, other, others_name), bound in theirs.items() if (other, others_name) == (function, name)]
    return found[0] if len(found) == 1 else []


def parts(row: str) -> list[str]:
    """What a row may be called where it is put into a container: any part of its path, the longest first."""
    steps = row.split("/")
    parts = ["/".join(steps[i:j]) for i in range(len(steps)) for j in range(i + 1, len(steps) + 1)]
    return sorted(parts, key=len, reverse=True)
