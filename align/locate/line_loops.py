"""Loops that end early, and generators that hand out less than the reference's."""

from dataclasses import replace

from align.locate.line_pair import Blame, Pair
from align.locate.recognise import same
from align.record.line_trace import LineTrace
from align.record.source import in_place_of


class Loops(Pair):
    """Compares how often loops went round, where what they made cannot be compared."""

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

    def yielded_otherwise(self, here: int) -> Blame | None:
        """Where a generator of the side's own hands out less than the reference's of that name, by one `yield` less."""
        there = self.nearest(here)
        port, reference = self.port.trace, self.reference.trace
        node = port.nodes[port.events[here].node]
        loops = (
            () if there is None else zip(node.loops, reference.nodes[reference.events[there].node].loops, strict=False)
        )
        for mine, other in loops:
            if port.rounds.get(str(mine)) == reference.rounds.get(str(other)):
                continue
            for name in (port.nodes[child].text for child in port.nodes[mine].children):
                given, expected = (_yields(trace, name) for trace in (port, reference))
                lacking = [n for n, times in expected.items() if times not in given.values()]
                if given and len(expected) > len(given) and lacking:
                    return self._in_its_place(next(iter(given)), lacking[0])
        return None

    def _in_its_place(self, mine: int, other: int) -> Blame | None:
        """The port's statement that stands where the reference's does, in functions of which these are nodes."""
        port, there = self.port.trace, self.reference.trace.nodes[other]
        row = in_place_of(port.nodes[mine].file, port.nodes[mine].line, there.file, there.line)
        if row is None:
            return None
        port.nodes.append(replace(port.nodes[mine], line=row[0], end_line=row[1], op="Statement", children=()))
        return Blame(0, None, "stands where the reference hands out more", node=len(port.nodes) - 1)

    def _unequal_loops(self, ours: int, theirs: int) -> tuple[int, int | None] | None:
        port, reference = self.port.trace, self.reference.trace
        there = reference.nodes[theirs].loops
        known = {count for loop in there for count in reference.rounds.get(str(loop), ())}
        for depth, loop in enumerate(port.nodes[ours].loops):
            if set(port.rounds.get(str(loop), ())) - known:
                return (loop, there[depth]) if depth < len(there) else None
        return None


def _yields(trace: LineTrace, function: str) -> dict[int, int]:
    """The `yield` nodes of a function that were run, with how often."""
    nodes = ((int(number), times) for number, times in trace.left.items())
    return {n: times for n, times in nodes if trace.nodes[n].op == "Yield" and trace.nodes[n].function == function}
