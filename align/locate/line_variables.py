"""Names that both sides share: variables of like functions that hold other values, loops that end early."""

from collections.abc import Collection
from pathlib import Path

from align.locate.line_pair import OTHER, Blame, code_of, nearest_line
from align.locate.line_rows import Rows
from align.locate.line_side import Side
from align.locate.recognise import same
from align.record.line_trace import Bound, LineTrace


class Variables(Rows):
    """Tells what the values alone cannot: they are the reference's, but not in this place."""

    def __init__(self, port: LineTrace, reference: LineTrace) -> None:
        super().__init__(port, reference)
        self._bound = self._bindings(self.port), self._bindings(self.reference)

    def bound_otherwise(self, way: Collection[int]) -> Blame | None:
        """The first variable, in functions that both sides have, that holds another of the reference's values.

        Only of the events on the way, and only where the value itself could not tell.
        """
        ours, theirs = self._bound
        events, nodes = self.port.trace.events, self.port.trace.nodes
        best: tuple[int, Blame] | None = None
        for key, bound in ours.items():
            others = theirs.get(key, [])
            if len(bound) != len(others) and not (self.port.trace.raised and len(bound) < len(others)):
                continue
            for (order, mine), (_, other) in zip(bound, others, strict=False):
                if mine.event not in way or not self.port.matched[mine.event] or (best and order > best[0]):
                    continue
                # The harness's, or from elsewhere.
                given = nodes[events[mine.event].node].op == "Name" or not self.port.is_own(mine.event)
                if self.differ(mine.event, other.event) and not (given and mine.node is None):
                    inner = (mine.event, other.event) if given else self._inside(mine.event, other.event)
                    best = order, Blame(*inner, OTHER, node=mine.node if given else None)
        return best and best[1]

    def handed_nothing(self) -> Blame | None:
        """The call of a function that hands it None for an argument that is a number in the reference."""
        ours, theirs = self._bound
        for key, bound in ours.items():
            for (_, mine), (_, other) in zip(bound, theirs.get(key, ()), strict=False):
                event, expected = self.port.trace.events[mine.event], self.reference.trace.events[other.event]
                nothing = event.kind == "flag" and event.value is None and expected.kind == "number"
                if nothing and mine.node is not None and self.port.trace.nodes[mine.node].op == "Call":
                    return Blame(mine.event, other.event, f"hands over no {mine.name}", node=mine.node)
        return None

    def configured_otherwise(self) -> Blame | None:
        """The first argument that is another text than in the reference: a mode, say, or a kind of interpolation."""
        ours, theirs = self._bound
        best: tuple[int, Blame] | None = None
        for key, bound in ours.items():
            for (order, mine), (_, other) in zip(bound, theirs.get(key, ()), strict=False):
                told, expected = self.port.trace.events[mine.event], self.reference.trace.events[other.event]
                fixed = self.port.role(mine.event)[1] in ("Held", "Constant")
                differs = told.kind == expected.kind == "text" and told.value != expected.value
                if fixed and differs and self.port.is_own(mine.event) and (best is None or order < best[0]):
                    best = (
                        order,
                        Blame(mine.event, other.event, f"is {told.value!r}, in the reference {expected.value!r}"),
                    )
        return best and best[1]

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

    def _bindings(self, side: Side) -> dict[tuple[str, str, str], list[tuple[int, Bound]]]:
        found: dict[tuple[str, str, str], list[tuple[int, Bound]]] = {}
        for order, bound in enumerate(side.trace.bindings):
            if bound.file in side.trace.own:
                found.setdefault((Path(bound.file).name, bound.function, bound.name), []).append((order, bound))
        return found

    def left_out(self, row: str) -> Blame | None:
        """Of a row that only the reference has: what the function that puts it into a container decided otherwise here.

        That is a variable of another value, a truth value, or else the line most like that which puts it there.
        """
        reference = self.reference.trace
        leaf = row.rpartition("/")[2]
        for name in (row, row.partition("/")[2], leaf):
            if lost := self.lost(name):
                return lost
        put = [n for name in (row, leaf) for n, _ in self.reference.containers(name) if self.reference.is_own(n)]
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
        ours, theirs = (self._flags_in(side, function) for side in (self.port, self.reference))
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

    def _flags_in(self, side: Side, key: tuple[str, str]) -> list[int]:
        nodes = side.trace.nodes
        inside = {n for n, node in enumerate(nodes) if (Path(node.file).name, node.function) == key}
        return [n for n, event in enumerate(side.trace.events) if event.kind == "flag" and event.node in inside]

    def left_undone(self, made: int, expected: int | None) -> Blame | None:
        """Of a value that the reference has too, and makes the right one of: the line most like the one that does."""
        value = self.port.trace.events[made].print
        if expected is None or value is None or not self.port.matched[made] or not self.reference.is_own(expected):
            return None
        events = self.reference.trace.events
        near = [n for n in self.reference.slice(expected) if n != expected and self._on_one_line(n, expected)]
        if not any(same(events[number].print, value) for number in [*events[expected].inputs, *near]):
            return None
        return self._most_like(expected, "does nothing with a value of which the reference makes the right one")

    def _most_like(self, there: int, why: str = "is the nearest to the line that makes this row there") -> Blame | None:
        """The port's line that reads most like one of the reference, in a function of the same name."""
        node = self.reference.trace.nodes[self.reference.trace.events[there].node]
        code = code_of(node.file, node.line, node.end_line)
        here = nearest_line(self.port, node.function, code)
        return None if here is None else Blame(here, there, why)

    def stopped_short(self, here: int, there: int | None) -> Blame | None:
        """The head of a loop, if the blamed event reads what the reference's loop had in an earlier round."""
        if there is None:
            return None
        port, reference = self.port.trace, self.reference.trace
        read = [reference.events[n] for n in reference.events[there].inputs]
        for number in port.events[here].inputs:
            mine = port.events[number]
            if mine.print is None or any(same(mine.print, event.print) for event in read):
                continue
            for event in read:
                earlier = [e for e in reference.events if e.node == event.node and same(e.print, mine.print)]
                loops = self._unequal_loops(mine.node, event.node) if earlier and event is not earlier[-1] else None
                if loops:
                    return Blame(here, there, "follows from a loop that went round another number of times", loops)
        return None

    def _unequal_loops(self, ours: int, theirs: int) -> tuple[int, int | None] | None:
        port, reference = self.port.trace, self.reference.trace
        there = reference.nodes[theirs].loops
        known = {count for loop in there for count in reference.rounds.get(str(loop), ())}
        for depth, loop in enumerate(port.nodes[ours].loops):
            if set(port.rounds.get(str(loop), ())) - known:
                return (loop, there[depth]) if depth < len(there) else None
        return None
