"""The line of a step without a model to replay: by the values that both sides' source lines compute.

An expression is blamed if it makes a value that the reference never has although all that it is made from is the
reference's, and a wrong row of the step derives from it. What differs and comes together again is innocent.
"""

import difflib
import linecache
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from align.locate.divergence import Divergence, Where
from align.locate.line_side import FEW, Side
from align.locate.recognise import reordered, same
from align.record.line_trace import Bound, LineTrace

LONGEST = 60  # characters of an expression that is quoted
RECENT = 64  # events before an exception in which its reason is looked for


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


class Search:
    """Both sides' traces of one step."""

    def __init__(self, port: LineTrace, reference: LineTrace) -> None:
        self.port, self.reference = Side(port, reference), Side(reference, port)
        events = port.events
        self._keyed = [(n, keys) for n, e in enumerate(events) if (keys := {key for key, _ in e.members if key})]
        self._bound = self._bindings(self.port), self._bindings(self.reference)
        self.wrong = [
            name
            for name, emission in self.port.emissions.items()
            if name in self.reference.emissions and not same(emission.print, self.reference.emissions[name].print)
        ]

    def blame(self, row: str) -> Blame | None:
        ours, theirs = self.port.emissions[row], self.reference.emissions[row]
        named = [(c, member) for c, member in self.port.containers(row) if c < ours.after]
        events = self.port.trace.events
        if any(same(events[m].print, theirs.print) for _, m in named) and (lost := self._lost(row)):
            return lost
        carried = [(c, m) for c, m in named if same(events[m].print, ours.print)]
        maker = carried[0][1] if carried else self.port.maker(ours)
        if maker is None:
            return self._handed_over(row, [c for c, _ in named])
        expected = self.reference.maker(theirs)
        there = None if expected is None else self.reference.first_divergent(expected, wrong=True)
        if self.port.matched[maker] and carried:
            return Blame(carried[0][0], there, MISPLACED)
        here = self.port.first_divergent(maker, wrong=True)
        if here is None:
            return None
        earlier = self._given(here, row)
        if earlier is not None:
            return self.blame(earlier)
        twin = expected if here == maker and self._alike(here, expected) else self._twin(here)
        return (
            self._stopped_short(here, twin)
            or self.bound_otherwise(self.port.slice(here))
            or Blame(self._in_own_code(here, maker), there if twin is None else twin, NEW)
        )

    def _given(self, here: int, row: str) -> str | None:
        """The earlier row whose tensor the step handed back to the port, if that is all that is wrong with this one."""
        event = self.port.trace.events[here]
        if event.inputs or self.port.role(here)[1] != "Name":
            return None
        for name in self.wrong[: self.wrong.index(row)]:
            if same(self.port.emissions[name].print, event.print):
                return name
        return None

    def _alike(self, here: int, there: int | None) -> bool:
        return there is not None and self.port.role(here) == self.reference.role(there)

    def _twin(self, here: int) -> int | None:
        """The event of the reference that does the same in the function of the same name, with a result of its own."""
        return next((n for n in self.reference.of_role(self.port.role(here)) if not self.reference.matched[n]), None)

    # A variable that has another value than its twin

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
                given = nodes[events[mine.event].node].op == "Name"  # the harness's, or from elsewhere
                if self._differ(mine.event, other.event) and not (given and mine.node is None):
                    inner = (mine.event, other.event) if given else self._inside(mine.event, other.event)
                    best = order, Blame(*inner, OTHER, node=mine.node if given else None)
        return best and best[1]

    def _inside(self, mine: int, other: int) -> tuple[int, int]:
        """Of two expressions that are put together alike, the innermost parts that differ."""
        ours, theirs = self.port.trace.events, self.reference.trace.events
        while self.port.role(mine) == self.reference.role(other):
            pairs = list(zip(ours[mine].inputs, theirs[other].inputs, strict=False))
            unequal = [(a, b) for a, b in pairs if self._differ(a, b) or self._told_otherwise(a, b)]
            if len(ours[mine].inputs) != len(theirs[other].inputs) or not unequal:
                break
            mine, other = unequal[0]
        return mine, other

    def _told_otherwise(self, mine: int, other: int) -> bool:
        first, second = self.port.trace.events[mine], self.reference.trace.events[other]
        return first.kind == second.kind == "flag" and first.value != second.value

    def _bindings(self, side: Side) -> dict[tuple[str, str, str], list[tuple[int, Bound]]]:
        found: dict[tuple[str, str, str], list[tuple[int, Bound]]] = {}
        for order, bound in enumerate(side.trace.bindings):
            if bound.file in side.trace.own:
                found.setdefault((Path(bound.file).name, bound.function, bound.name), []).append((order, bound))
        return found

    def _differ(self, mine: int, other: int) -> bool:
        first, second = self.port.trace.events[mine].print, self.reference.trace.events[other].print
        return first is not None and second is not None and not same(first, second) and not reordered(first, second)

    def _in_own_code(self, number: int, last: int) -> int:
        """The event itself; if a library made it, the first in the side's own code that derives from it."""
        if self.port.is_own(number):
            return number
        for other in range(number + 1, last + 1):
            if self.port.is_own(other) and number in self.port.slice(other):
                return other
        return last

    # A loop that ends early

    def _stopped_short(self, here: int, there: int | None) -> Blame | None:
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
                return loop, there[depth] if depth < len(there) else None
        return None

    # What only the framework has in the end

    def _handed_over(self, row: str, containers: list[int]) -> Blame | None:
        """No line of the port has the wrong value: it handed something over under this name, or nothing."""
        if not containers:
            return self._lost(row)
        decided = self._decision(containers)
        if decided is not None:
            return Blame(
                decided, self._nearest(decided), "decides otherwise for the wrong rows than for the right ones"
            )
        return self._lost(row) or Blame(containers[-1], self._nearest(containers[-1]), "is the last to hold this row")

    def _decision(self, containers: list[int]) -> int | None:
        """The truth value that all wrong rows have and no right one has (after Liblit and others, PLDI 2005)."""
        events, bad = self.port.trace.events, set(self.wrong)
        right = self.port.emissions.keys() - bad
        best: tuple[int, int] | None = None
        for container in dict.fromkeys(containers):
            members = {key: member for key, member in events[container].members if key}
            if not bad <= members.keys() or not right & members.keys():
                continue
            seen = {
                key: {(events[n].node, events[n].value): n for n in self.port.slice(member) if events[n].kind == "flag"}
                for key, member in members.items()
                if key in bad or key in right
            }
            common = set.intersection(*(set(seen[key]) for key in bad))
            for node, value in common:
                if any((node, value) in seen[key] for key in right & members.keys()):
                    continue
                votes = sum((node, not value) in seen[key] for key in right & members.keys())
                number = min(seen[key][node, value] for key in bad)
                best = max(best or (0, 0), (votes, -number))
        return -best[1] if best and best[0] else None

    def _lost(self, row: str) -> Blame | None:
        """The first expression that leaves a row out of what it makes of the others."""
        events = self.port.trace.events
        for number, keys in self._keyed:
            if row in keys or not self.port.is_own(number) or self.port.role(number)[1] == "Store":
                continue  # a dictionary that is being filled has not got to it yet
            for source in self._sources(number):
                names = {key for key, _ in events[source].members if key}
                if row in names and len(keys & names) * 2 > len(names) and not self._renamed(row, source, number):
                    return Blame(number, self._nearest(number), "leaves this row out")
        return None

    def _renamed(self, row: str, source: int, number: int) -> bool:
        """Whether the row's tensor is there, under another name."""
        events = self.port.trace.events
        found = next(events[member].print for key, member in events[source].members if key == row)
        others = [events[member].print for key, member in events[number].members]
        return found is not None and any(other is not None and same(found, other) for other in others)

    def _sources(self, number: int, depth: int = 3) -> Iterator[int]:
        for source in self.port.trace.events[number].inputs:
            yield source
            if depth:
                yield from self._sources(source, depth - 1)

    # An exception

    def before_exception(self, function: str) -> Blame | None:
        """What was wrong already in the variables, and just before the end, of a function that raised."""
        port, events = self.port, self.port.trace.events
        variables = {bound.name: bound.event for bound in port.trace.bindings if bound.function == function}
        recent = range(max(0, len(events) - RECENT), len(events))
        groups = [[n, *(member for _, member in events[n].members)] for n in reversed(variables.values())]
        groups.append([number for number in recent if port.role(number)[0] == function])
        blame = self._misplaced() or self.bound_otherwise({n for group in groups for m in group for n in port.slice(m)})
        if blame:
            return blame
        for group in groups:
            found = [port.first_divergent(number) for number in group if not port.matched[number]]
            # A constant that only the port has is as likely an index of its own, an array of none an initial value.
            numbers = [n for n in found if n is not None and (self._of_data(n) or port.role(n)[1] == "Held")]
            if numbers:
                return Blame(min(numbers), self._twin_or_nearest(min(numbers)), NEW)
        return None

    def _of_data(self, number: int) -> bool:
        """Whether an event derives from an array that both sides have."""
        events, known = self.port.trace.events, self.port.matched
        return any(known[n] and (found := events[n].print) and found.size >= FEW for n in self.port.slice(number))

    def _misplaced(self) -> Blame | None:
        """The first container that holds one row of the reference under the name of another."""
        expected = {name: e.print for name, e in self.reference.emissions.items() if e.print and e.print.size >= FEW}
        events = self.port.trace.events
        for number, _ in self._keyed:
            for key, member in events[number].members:
                found = events[member].print
                if key not in expected or found is None or same(found, expected[key]) or not self.port.is_own(number):
                    continue
                if not reordered(found, expected[key]) and any(same(found, other) for other in expected.values()):
                    return Blame(number, self._nearest(number), MISPLACED)
        return None

    # Places

    def _twin_or_nearest(self, number: int) -> int | None:
        twin = self._twin(number)
        return self._nearest(number) if twin is None else twin

    def _nearest(self, number: int) -> int | None:
        """The event of the reference in the function of the same name whose line reads most like this one's."""
        event = self.port.trace.events[number]
        node = self.port.trace.nodes[event.node]
        return self.nearest_line(node.function, _code(node.file, node.line, node.end_line))

    def nearest_line(self, function: str, code: str) -> int | None:
        best: tuple[float, int] = (0.0, -1)
        nodes = self.reference.trace.nodes
        seen: set[int] = set()
        for number, event in enumerate(self.reference.trace.events):
            if event.node in seen:
                continue
            seen.add(event.node)
            node = nodes[event.node]
            if node.file in self.reference.trace.own:
                text = _code(node.file, node.line, node.end_line)
                likeness = difflib.SequenceMatcher(None, code, text).ratio() + (node.function == function)
                best = max(best, (likeness, number))
        return best[1] if best[1] >= 0 else None

    def node(self, blame: Blame) -> int:
        """Where the port is blamed."""
        if blame.loop:
            return blame.loop[0]
        return self.port.trace.events[blame.port].node if blame.node is None else blame.node

    def divergence(self, step: str, row: str, blame: Blame, rows: int) -> Divergence:
        mine, other = self.port.trace, self.reference.trace
        if blame.loop:
            port = _where(mine, blame.loop[0])
            reference = None if blame.loop[1] is None else _where(other, blame.loop[1])
        else:
            port = _with_constructor(mine, blame.port) if blame.node is None else _where(mine, blame.node)
            reference = None if blame.reference is None else _with_constructor(other, blame.reference)
        also = f" and {rows - 1} more" if rows > 1 else ""
        node = mine.nodes[self.node(blame)]
        what = f"{row}{also}: `{_quoted(node.file, node.line, node.text, node.op)}` {blame.why}"
        return Divergence(step, "", what, float("inf"), port, reference)


def _with_constructor(trace: LineTrace, number: int) -> Where:
    """The line of an event; `built` is the call that made the object which is called there."""
    event = trace.events[number]
    where = _where(trace, event.node)
    if trace.nodes[event.node].op == "Call" and event.inputs:
        origin = trace.events[event.inputs[0]]
        made = trace.nodes[origin.node]
        if origin.kind == "opaque" and made.op == "Call" and made.file in trace.own:
            return replace(where, built=_where(trace, origin.node).as_json())
    return where


def _where(trace: LineTrace, node: int) -> Where:
    place = trace.nodes[node]
    return Where(place.file, place.line, place.end_line, _code(place.file, place.line, place.end_line))


def _code(file: str, line: int, end_line: int) -> str:
    return "\n".join(linecache.getline(file, n).rstrip() for n in range(line, end_line + 1)).strip()


def _quoted(file: str, line: int, text: str, op: str) -> str:
    return f"{text}(...)" if op == "Call" else text or op


def line_divergences(
    step: str, port: LineTrace, reference: LineTrace, rows: Collection[str] | None = None
) -> list[Divergence]:
    """Every blamed line of a step, in the order of the rows that showed it; `rows` are the only ones asked for."""
    search = Search(port, reference)
    found: dict[tuple[str, int], tuple[str, Blame]] = {}
    counts: Counter[tuple[str, int]] = Counter()
    for row in search.wrong:
        if rows is not None and row not in rows:
            continue
        blame = search.blame(row)
        if blame is None:
            continue
        node = port.nodes[search.node(blame)]
        counts[node.file, node.line] += 1
        found.setdefault((node.file, node.line), (row, blame))
    answers = [search.divergence(step, row, blame, counts[key]) for key, (row, blame) in found.items()]
    if port.raised:
        answers.append(_raised(step, port, search))
    return answers


def _raised(step: str, port: LineTrace, search: Search) -> Divergence:
    """The line that raised; or, if what it read there was wrong already, the line that made it so."""
    place = port.raised or {}
    what = f"raises {place['told']}"
    blame = search.before_exception(place["function"])
    if blame:
        found = search.divergence(step, "", blame, 1)
        return replace(found, what=f"{what}: {found.what.removeprefix(': ')}")
    where = Where(place["file"], place["line"], place["end_line"], place["code"])
    nearest = search.nearest_line(place["function"], place["code"])
    reference = None if nearest is None else _where(search.reference.trace, search.reference.trace.events[nearest].node)
    return Divergence(step, "", what, float("inf"), where, reference)
