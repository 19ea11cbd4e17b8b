"""Both sides' line traces of one step, and what of one belongs to what of the other."""

import difflib
import linecache
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from align.locate.line_side import Side
from align.locate.recognise import reordered, same
from align.record.line_trace import LineTrace
from align.record.source import ALIKE


@dataclass(frozen=True)
class Blame:
    """An event of the port, why it is blamed, and its counterpart in the reference if one is known."""

    port: int
    reference: int | None
    why: str
    loop: tuple[int, int | None] | None = None  # `For` nodes of both sides, where a loop is to blame
    node: int | None = None  # where not the event's own


MISPLACED = "puts another tensor under this name"
OTHER = "is another of the reference's values than there"
NEW = "makes a value that the reference does not have"


class Pair:
    """`wrong` are the rows, in the order of the port, that the sides made differently."""

    def __init__(self, port: LineTrace, reference: LineTrace) -> None:
        self.port, self.reference = Side(port, reference), Side(reference, port)
        self._nearest: dict[tuple[str, str], int | None] = {}
        self._port_nearest: dict[tuple[str, str], int | None] = {}
        self.wrong = [
            name
            for name, emission in self.port.emissions.items()
            if name in self.reference.emissions and not same(emission.print, self.reference.emissions[name].print)
        ]

    def is_given(self, number: int) -> bool:
        """Whether an event only loads what comes from elsewhere, from the harness, say, or a count of an object's."""
        event, op = self.port.trace.events[number], self.port.role(number)[1]
        loads = not event.inputs and op == "Name"
        counts = op == "Attribute" and event.print is not None and event.print.integer and event.print.size == 1
        return loads or counts or not self.port.is_own(number)

    def alike(self, here: int, there: int | None) -> bool:
        return there is not None and self.port.role(here) == self.reference.role(there)

    def twin(self, here: int) -> int | None:
        """The event of the reference that does the same in the function of the same name, with a result of its own."""
        return next((n for n in self.reference.of_role(self.port.role(here)) if not self.reference.matched[n]), None)

    def twin_or_nearest(self, number: int) -> int | None:
        twin = self.twin(number)
        return self.nearest(number) if twin is None else twin

    def nearest(self, number: int) -> int | None:
        """The event of the reference in the function of the same name whose line reads most like this one's."""
        node = self.port.trace.nodes[self.port.trace.events[number].node]
        return self.nearest_line(node.function, code_of(node.file, node.line, node.end_line))

    def nearest_line(self, function: str, code: str) -> int | None:
        if (function, code) not in self._nearest:
            self._nearest[function, code] = nearest_line(self.reference, function, code)
        return self._nearest[function, code]

    def nearest_own(self, function: str, code: str) -> int | None:
        """Likewise the port's node."""
        if (function, code) not in self._port_nearest:
            self._port_nearest[function, code] = nearest_node(self.port, function, code)
        return self._port_nearest[function, code]

    def differ(self, mine: int, other: int) -> bool:
        first, second = self.port.trace.events[mine].print, self.reference.trace.events[other].print
        return first is not None and second is not None and not same(first, second) and not reordered(first, second)

    def through_harness(self, mine: int, other: int | None) -> tuple[int, int | None]:
        """Of two events of the harness, whose code is one on both sides, the sides' own that they differ by."""
        while other is not None and not self.port.is_own(mine) and not self.reference.is_own(other):
            ours, theirs = self.port.trace.events[mine], self.reference.trace.events[other]
            one, same_one = self.port.trace.nodes[ours.node], self.reference.trace.nodes[theirs.node]
            if (Path(one.file).name, one.line, one.op) != (Path(same_one.file).name, same_one.line, same_one.op):
                break
            parts = [([m for _, m in event.members] or event.inputs) for event in (ours, theirs)]
            if len(parts[0]) != len(parts[1]):
                break
            pair = next(((a, b) for a, b in zip(*parts, strict=True) if self.unlike(a, b)), None)
            if pair is None:
                break
            mine, other = pair
        return self.port.last_maker(mine), other

    def unlike(self, mine: int, other: int, depth: int = 3) -> bool:
        """Whether two events hold other numbers or truth values, or containers that do."""
        if self.differ(mine, other) or self.told_otherwise(mine, other):
            return True
        members = [
            [m for _, m in side.trace.events[n].members] for side, n in ((self.port, mine), (self.reference, other))
        ]
        if not depth or len(members[0]) != len(members[1]):
            return False
        return any(self.unlike(a, b, depth - 1) for a, b in zip(*members, strict=True))

    def told_otherwise(self, mine: int, other: int) -> bool:
        first, second = self.port.trace.events[mine], self.reference.trace.events[other]
        return first.kind == second.kind == "flag" and first.value != second.value


def code_of(file: str, line: int, end_line: int) -> str:
    return "\n".join(linecache.getline(file, n).rstrip() for n in range(line, end_line + 1)).strip()


def nearest_line(side: Side, function: str, code: str) -> int | None:
    """The event of a side's own code that reads most like this; None where neither a name nor a line does."""
    events = side.trace.events
    first: dict[int, int] = {}
    for number, event in enumerate(events):
        first.setdefault(event.node, number)
    node = nearest_node(side, function, code, first)
    return None if node is None else first[node]


def nearest_node(side: Side, function: str, code: str, nodes: Collection[int] | None = None) -> int | None:
    """Likewise of these nodes, or of all, whether they had an event of their own or only handed something on."""
    best: tuple[float, int] = (0.0, -1)
    alike: dict[tuple[str, int, int], float] = {}
    for number in range(len(side.trace.nodes)) if nodes is None else nodes:
        node = side.trace.nodes[number]
        if node.file in side.trace.own:
            at, bonus = (node.file, node.line, node.end_line), node.function == function
            if at not in alike:
                matcher = difflib.SequenceMatcher(None, code, code_of(*at))
                hopeless = matcher.real_quick_ratio() + bonus < best[0] or matcher.quick_ratio() + bonus < best[0]
                alike[at] = -1.0 if hopeless else matcher.ratio()
            if alike[at] + bonus >= best[0]:  # of one line, the expression that holds the others
                best = alike[at] + bonus, number
    return best[1] if best[0] > ALIKE else None
