"""One side's line trace, seen from the other side's values: what is matched, innocent, or the first to differ."""

from collections import Counter
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from align.locate.recognise import Prints, matched, reordered, same, weak
from align.record.line_trace import Emission, Event, LineTrace

PARTS = ("Subscript", "For", "Write")  # these take something out of a whole, or write one of many
FEW = 16  # integers up to which an array may well be a shape


class Side:
    """One side's trace, seen from the other side's values."""

    def __init__(self, trace: LineTrace, theirs: LineTrace) -> None:
        self.trace, self.theirs = trace, Prints(theirs)
        self.emissions = {emission.name: emission for emission in trace.emissions}
        self._own = set(trace.own)
        self.matched = matched(trace, self.theirs)
        self._innocent = self._innocents()
        self._index()

    def upstream(self, number: int) -> list[int]:
        event = self.trace.events[number]
        return [*event.inputs, *(member for _, member in event.members)]

    def is_own(self, number: int) -> bool:
        return self.trace.nodes[self.trace.events[number].node].file in self._own

    def _innocents(self) -> set[int]:
        """Nodes whose unmatched values became, at least once, a matched value that says something.

        A part that is right does not vouch for the whole that it was taken from, nor a plain number, a rounded one say,
        for what it was made of.
        """
        todo = [n for n, known in enumerate(self.matched) if known and _telling(self.trace.events[n])]
        seen: set[int] = set()
        while todo:
            event = self.trace.events[todo.pop()]
            vouches = self.trace.nodes[event.node].op not in PARTS and not weak(event)
            for number in event.inputs if vouches else ():
                if not self.matched[number] and number not in seen and self.trace.events[number].kind == "number":
                    seen.add(number)
                    todo.append(number)
        return {self.trace.events[number].node for number in seen}

    def first_divergent(self, start: int, wrong: bool = False) -> int | None:
        """On the way to an event, the first that makes a value the other side lacks of values that it has.

        `wrong`: the value at the start is known to be wrong, though the other side has it somewhere.
        """
        way, todo = {start}, [start]
        while todo:
            new = [n for n in self.upstream(todo.pop()) if not self.matched[n] and n not in way]
            way.update(new)
            todo += new
        beyond: set[int] = set()  # those with a suspect upstream
        for number in sorted(way):
            if beyond.isdisjoint(self.upstream(number)):
                if not self._suspect(number) and not (number == start and wrong):
                    continue
                return number
            beyond.add(number)
        return None

    def _suspect(self, number: int) -> bool:
        """Whether an event makes something that is not there on the other side, and no innocent."""
        event = self.trace.events[number]
        return event.print is not None and event.print not in self.theirs and event.node not in self._innocent

    def maker(self, emission: Emission) -> int | None:
        """The event that made what was emitted, if known; else, by value, the first, or of a plain number the last.

        What the harness made, it may have read from an object: if the side's own code has made this value, it is that.
        """
        known, found = emission.event, emission.print
        if known is not None and self.is_own(known):
            return known
        numbers = [] if found is None else [n for n in self._by_size.get(found.size, ()) if n < emission.after]
        numbers = [n for n in numbers if same(self.trace.events[n].print, found) and (known is None or self.is_own(n))]
        plain = bool(numbers) and weak(self.trace.events[numbers[0]])
        if not numbers or (plain and known is not None):
            return known
        return numbers[-1] if plain else numbers[0]

    def last_maker(self, number: int) -> int:
        """Of what the harness has read from an object, the last event of the side's own that made this value."""
        event = self.trace.events[number]
        if self.is_own(number) or event.print is None or weak(event):
            return number
        made = [n for n in reversed(self._by_size[event.print.size]) if n < number and self.is_own(n)]
        alike = (n for n in made if same(self.trace.events[n].print, event.print))
        turned = (n for n in made if (found := self.trace.events[n].print) and reordered(found, event.print))
        return next(alike, next(turned, number))

    def origin(self, number: int) -> int:
        """The event that made the value which this one only hands on, as another type, say."""
        event = self.trace.events[number]
        for source in event.inputs:
            if same(event.print, self.trace.events[source].print) and event.print is not None and not weak(event):
                return self.origin(source)
        return number

    def containers(self, key: str) -> list[tuple[int, int]]:
        """(container, member) of every container that has this key."""
        return self._by_key.get(key, [])

    @cached_property
    def flags(self) -> dict[tuple[str, str], list[int]]:
        """The truth values of every function, by the name of its file and its own, in order."""
        names = [(Path(node.file).name, node.function) for node in self.trace.nodes]
        found: dict[tuple[str, str], list[int]] = {}
        for number, event in enumerate(self.trace.events):
            if event.kind == "flag":
                found.setdefault(names[event.node], []).append(number)
        return found

    def holders(self, number: int) -> set[int]:
        """The containers that have this event among their members."""
        return self._held_by.get(number, set())

    @cached_property
    def _held_by(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for number, event in enumerate(self.trace.events):
            for _, member in event.members:
                found.setdefault(member, set()).add(number)
        return found

    @cached_property
    def constructors(self) -> list[int]:
        """The calls that made the objects whose methods wrote into parameters, in order."""
        found = set()
        for event in self.trace.events:
            if event.again and any(self.role(n)[1] == "Write" for n in event.inputs[1:]):
                number = event.inputs[0]
                while self.trace.events[number].again:
                    number = self.trace.events[number].inputs[0]
                if self.role(number)[1] == "Call":
                    found.add(number)
        return sorted(number for number in found if self.is_own(number))

    def computed_before(self, number: int, kinds: Collection[str]) -> int | None:
        """The last of the side's own events of these kinds, before this one, that made the same plain number."""
        value = self.trace.events[number].print
        numbers = [] if value is None else reversed(self._by_size[value.size])
        own = (n for n in numbers if n < number and self.role(n)[1] in kinds and self.is_own(n))
        return next((n for n in own if same(self.trace.events[n].print, value)), None)

    @cached_property
    def unused(self) -> list[int]:
        """The calls of the side's own code whose numbers nothing took, plain ones aside."""
        events = self.trace.events
        taken = {n for event in events for n in (*event.inputs, *(m for _, m in event.members))}
        taken |= {bound.event for bound in self.trace.bindings}
        taken |= {emission.event for emission in self.trace.emissions if emission.event is not None}
        kept = (n for n, event in enumerate(events) if event.kind == "number" and n not in taken and not weak(event))
        return [n for n in kept if self.role(n)[1] == "Call" and self.is_own(n)]

    def of_size(self, size: int) -> list[int]:
        """The events of as many elements."""
        return self._by_size.get(size, [])

    def of_role(self, role: tuple[str, str, str]) -> list[int]:
        """The events of this function, kind of expression and text."""
        return self._by_role.get(role, [])

    def role(self, number: int) -> tuple[str, str, str]:
        node = self.trace.nodes[self.trace.events[number].node]
        return node.function, node.op, node.text

    def _index(self) -> None:
        self._by_key: dict[str, list[tuple[int, int]]] = {}
        self._by_size: dict[int, list[int]] = {}
        self._by_role: dict[tuple[str, str, str], list[int]] = {}
        self.times = Counter(event.node for event in self.trace.events)
        for number, event in enumerate(self.trace.events):
            self._by_role.setdefault(self.role(number), []).append(number)
            if event.print is not None:
                self._by_size.setdefault(event.print.size, []).append(number)
            for key, member in event.members:
                if key is not None:
                    self._by_key.setdefault(key, []).append((number, member))

    def slice(self, number: int) -> set[int]:
        """All that an event derives from."""
        seen, todo = {number}, [number]
        while todo:
            new = [n for n in self.upstream(todo.pop()) if n not in seen]
            seen.update(new)
            todo += new
        return seen


def _telling(event: Event) -> bool:
    """Whether a match of this number could hardly be by chance."""
    found = event.print
    if event.kind != "number" or found is None or not found.rms or weak(event):
        return False
    return found.size >= FEW if found.integer else True
