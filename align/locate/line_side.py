"""One side's line trace, seen from the other side's values: what is matched, innocent, or the first to differ."""

from collections import Counter

from align.locate.recognise import Prints, matched, same, weak
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
