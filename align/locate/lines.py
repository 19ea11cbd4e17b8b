"""The line of a step without a model to replay: by the values that both sides' source lines compute.

An expression is blamed if it makes a value that the reference never has although all that it is made from is the
reference's, and a wrong row of the step derives from it. What differs and comes together again is innocent.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from align.locate.acts import MADE, acted_otherwise, first_difference
from align.locate.divergence import Divergence, Where
from align.locate.line_decisions import Decisions
from align.locate.line_loops import Loops
from align.locate.line_pair import MISPLACED, NEW, Blame, code_of
from align.locate.line_side import FEW
from align.locate.line_variables import Variables, parts
from align.locate.recognise import same, weak
from align.record.fingerprint import Fingerprint
from align.record.instrument import Node
from align.record.line_trace import LineTrace

LONGEST = 60  # characters of an expression that is quoted
OPERATIONS = ("BinOp", "UnaryOp", "AugAssign")
KINDS = dict.fromkeys((*OPERATIONS, "BoolOp"), "the operation") | {
    "Compare": "the comparison",
    "IfExp": "the choice",
    "Subscript": "the index",
    "For": "the loop",
    "Store": "the assignment",
    "DictComp": "the dictionary",
    "Tuple": "the tuple",
    "Statement": "the statement",
}
Found = dict[tuple[str, int], tuple[str, Blame]]  # by file and line: the first row, and who is blamed
RECENT = 64  # events before an exception in which its reason is looked for


class Search(Variables, Decisions, Loops):
    """Whom to blame, in both sides' traces of one step."""

    def blame(self, row: str) -> Blame | None:
        ours, theirs = self.port.emissions[row], self.reference.emissions[row]
        named = [(c, member) for c, member in self.port.containers(row) if c < ours.after]
        events = self.port.trace.events
        if any(same(events[m].print, theirs.print) for _, m in named) and (lost := self.lost(row)):
            return lost
        carried = [(c, m) for c, m in named if same(events[m].print, ours.print)]
        maker = carried[0][1] if carried else self.port.maker(ours)
        if maker is None:
            return self.handed_over(row, [c for c, _ in named])
        expected = self.reference.maker(theirs)
        maker, expected = self.through_harness(maker, expected)
        there = None if expected is None else self.reference.first_divergent(expected, wrong=True)
        if self.port.matched[maker] and carried:
            return Blame(carried[0][0], there, MISPLACED)
        if (stored := self._stored(row, maker, expected)) is not None:
            return Blame(stored, there, MISPLACED)
        if (lacking := self.left_undone(maker, expected)) is not None:
            return lacking
        here = self.port.first_divergent(maker, wrong=True)
        if here is None:
            return None
        if self.port.matched[here] and (told := self.told_apart(self._made_last(row, maker))):
            return told
        way = self.port.slice(here)
        held = self.port.holders(maker) if self.port.matched[maker] else set()  # only its place can be wrong
        here = self._computed(self.port.origin(here))
        earlier = self._given(here, row)
        if earlier is not None:
            return self.blame(earlier)
        told = self.constructed_otherwise(row) or self.not_done_to(maker, expected) or self.counted_otherwise(here)
        if told is not None:
            return told
        if self.port.role(here)[1] == "Write" and (told := self.decided_otherwise or self.handed_nothing):
            return told
        twin = expected if here == maker and self.alike(here, expected) else self.twin(here)
        inside = self._in_own_code(here, maker)
        if not self.port.is_own(inside):
            return None  # the harness alone made this
        return (
            self.stopped_short(here, twin)
            or self.yielded_otherwise(inside)
            or self.chosen_otherwise(here)
            or self.run_otherwise(here)
            or self.bound_otherwise(way, held)
            or self.configured_otherwise(way)
            or self.dropped(expected)
            or Blame(inside, there if twin is None else twin, NEW)
        )

    def handed_in(self, found: Fingerprint | None) -> Blame | None:
        """Who made what a model was given, if that is no value of the reference's."""
        numbers = [] if found is None else [n for n in self.port.of_size(found.size) if self.port.is_own(n)]
        numbers = [n for n in numbers if same(self.port.trace.events[n].print, found) and not self.port.matched[n]]
        here = self.port.first_divergent(numbers[-1], wrong=True) if numbers else None
        if here is None or not self.port.is_own(here) or self.is_given(here):
            return None
        return Blame(here, self.twin_or_nearest(here), NEW)

    def only_loads(self, blame: Blame) -> bool:
        return blame.node is None and self.is_given(blame.port)

    def unexplained(self, found: Found) -> Found:
        """Without those whose blamed value was made by an expression that is blamed for another row."""
        events = self.port.trace.events
        nodes = {key: self.node(blame) for key, (_, blame) in found.items()}
        ways = {key: {events[n].node for n in self.port.slice(blame.port)} for key, (_, blame) in found.items()}
        # An object says nothing of what in it is wrong.
        told = [key for key, (_, blame) in found.items() if events[blame.port].kind == "number"]
        explained = {
            key
            for key in found
            for other in told
            if other != key and nodes[other] in ways[key] and nodes[key] not in ways[other]
        }
        return {key: entry for key, entry in found.items() if key not in explained}

    def _computed(self, number: int) -> int:
        """Of a whole number that an object tells, the operation that computed it: its attributes have no makers."""
        event = self.port.trace.events[number]
        told = self.port.role(number)[1] == "Attribute" and event.print is not None and event.print.integer
        before = self.port.computed_before(number, OPERATIONS) if told else None
        return number if before is None else before

    def _stored(self, row: str, maker: int, expected: int | None) -> int | None:
        """Where the reference's value, in a container under a name that the row has, was replaced by another of its."""
        if expected is None or not self.port.matched[maker] or weak(self.port.trace.events[maker]):
            return None
        right, events = self.reference.trace.events[expected].print, self.port.trace.events
        for name in parts(row):
            held = self.port.containers(name)
            before = [c for c, member in held if same(events[member].print, right)]
            after = (c for c, member in held if member == maker and before and c > before[0])
            if (stored := next((c for c in after if self.port.is_own(c)), None)) is not None:
                return stored
        return None

    def _made_last(self, row: str, maker: int) -> int:
        event = self.port.emissions[row].event
        made = maker if event is None else self.port.last_maker(event)
        return made if self.port.is_own(made) and self.port.is_own(maker) and event is not None else maker

    def _given(self, here: int, row: str) -> str | None:
        """The earlier row whose tensor the step handed back to the port, if that is all that is wrong with this one."""
        event = self.port.trace.events[here]
        if not self.is_given(here):
            return None
        for name in self.wrong[: self.wrong.index(row)]:
            if same(self.port.emissions[name].print, event.print):
                return name
        return None

    def _in_own_code(self, number: int, last: int) -> int:
        """The event itself; if a library made it, the first in the side's own code that derives from it."""
        if self.port.is_own(number):
            return number
        derived = {number}
        for other in range(number + 1, last + 1):
            if not derived.isdisjoint(self.port.upstream(other)):
                if self.port.is_own(other):
                    return other
                derived.add(other)
        return self._nearest_own(number)

    def _nearest_own(self, number: int) -> int:
        """Of what an event of the harness was made from, that which the side's own code made last."""
        seen, todo = {number}, [number]
        for other in todo:
            if self.port.is_own(other) and self.port.role(other)[1] not in ("Constant", "Name", "Attribute"):
                return other
            new = sorted({n for n in self.port.upstream(other) if n not in seen}, reverse=True)
            seen.update(new)
            todo += new
        return number

    def before_exception(self, function: str) -> Blame | None:
        """What was wrong already in the variables, and just before the end, of a function that raised."""
        port, events = self.port, self.port.trace.events
        variables = {bound.name: bound.event for bound in port.trace.bindings if bound.function == function}
        recent = range(max(0, len(events) - RECENT), len(events))
        groups = [[n, *(member for _, member in events[n].members)] for n in reversed(variables.values())]
        groups.append([number for number in recent if port.role(number)[0] == function])
        blame = self.misplaced() or self.bound_otherwise({n for group in groups for m in group for n in port.slice(m)})
        if blame:
            return blame
        for group in groups:
            found = [port.first_divergent(number) for number in group if not port.matched[number]]
            # A constant that only the port has is as likely an index of its own, an array of none an initial value.
            numbers = [n for n in found if n is not None and (self._of_data(n) or port.role(n)[1] == "Held")]
            if numbers:
                return Blame(min(numbers), self.twin_or_nearest(min(numbers)), NEW)
        return None

    def _of_data(self, number: int) -> bool:
        """Whether an event derives from an array that both sides have."""
        events, known = self.port.trace.events, self.port.matched
        return any(known[n] and (found := events[n].print) and found.size >= FEW for n in self.port.slice(number))

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
            if step == "optim" and port.built is None:
                port = replace(port, built=_optimizer(mine))
            reference = None if blame.reference is None else _with_constructor(other, blame.reference)
        also = f" and {rows - 1} more" if rows > 1 else ""
        node = mine.nodes[self.node(blame)]
        what = f"{row}{also}: {_named(node)} {blame.why}"
        return Divergence(step, "", what, float("inf"), port, reference)


def _with_constructor(trace: LineTrace, number: int) -> Where:
    """The line of an event; `built` is the call that made the object which is called there."""
    event = trace.events[number]
    where = _where(trace, event.node)
    if trace.nodes[event.node].op in ("Call", "Write") and event.inputs:
        origin = trace.events[event.inputs[0]]
        while origin.again:
            origin = trace.events[origin.inputs[0]]
        made = trace.nodes[origin.node]
        if origin.kind == "opaque" and made.op == "Call" and made.file in trace.own:
            return replace(where, built=_where(trace, origin.node).as_json())
    return where


def _optimizer(trace: LineTrace) -> Mapping[str, Any] | None:
    """The call that made the object whose method wrote into parameters: what it was given is half of every update."""
    for number, event in enumerate(trace.events):
        if trace.nodes[event.node].op == "Write" and (built := _with_constructor(trace, number).built):
            return built
    return None


def _where(trace: LineTrace, node: int) -> Where:
    place = trace.nodes[node]
    return Where(place.file, place.line, place.end_line, code_of(place.file, place.line, place.end_line))


def _named(node: Node) -> str:
    """What an expression is, for people."""
    if node.op in ("Name", "Attribute", "Held", "Constant"):
        return f"`{node.text}`"
    if node.op in ("Call", "Write"):
        return f"`{node.text}(...)`" if len(node.text) <= LONGEST else f"`...{node.text[-LONGEST:]}(...)`"
    return KINDS.get(node.op, "the expression") + (f" ({node.text})" if node.text and node.op in OPERATIONS else "")


def line_divergences(
    step: str, port: LineTrace, reference: LineTrace, rows: Collection[str] | None = None
) -> list[Divergence]:
    """Every blamed line of a step, in the order of the rows that showed it; `rows` are the only ones asked for."""
    search = Search(port, reference)
    late = first_difference(port, reference)
    acted = acted_otherwise(step, port, reference)
    if acted and late:  # all that follows differs
        batch = search.handed_in(port.acts[late[0]].print) if late[1] == "value" else None
        return [acted if batch is None else search.divergence(step, "the batch", batch, 1)]
    if late and late[1] == "value" and (blame := search.blame(port.acts[late[0]].row)):
        return [search.divergence(step, MADE[port.acts[late[0]].kind], blame, 1)]
    found: Found = {}
    counts: Counter[tuple[str, int]] = Counter()
    lone = [row for row in search.port.emissions if row not in search.reference.emissions]
    gone = [row for row in search.reference.emissions if row not in search.port.emissions]
    if lone or port.raised:  # under a name of its own a tensor is missing under its right one
        gone = []
    whom = {**dict.fromkeys(lone, search.named_otherwise), **dict.fromkeys(gone, search.left_out)}
    for row in [*whom, *search.wrong]:
        if rows is not None and row not in rows:
            continue
        blamed = whom.get(row, search.blame)(row)
        if blamed is None:
            continue
        node = port.nodes[search.node(blamed)]
        counts[node.file, node.line] += 1
        found.setdefault((node.file, node.line), (row, blamed))
    made = {key: entry for key, entry in found.items() if not search.only_loads(entry[1])}
    found = search.unexplained(made or found)
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
