"""Rows known by their name in dictionaries: left out, put under another name, or treated unlike the others."""

from collections.abc import Iterator

from align.locate.line_pair import MISPLACED, Blame, Pair
from align.locate.line_side import FEW
from align.locate.recognise import reordered, same
from align.record.line_trace import LineTrace


class Rows(Pair):
    """Follows a row by its name where only the framework has its tensor in the end."""

    def __init__(self, port: LineTrace, reference: LineTrace) -> None:
        super().__init__(port, reference)
        events = port.events
        self._keyed = [(n, keys) for n, e in enumerate(events) if (keys := {key for key, _ in e.members if key})]
        self._flags_of: dict[int, dict[tuple[int, bool | None], int]] = {}

    def handed_over(self, row: str, containers: list[int]) -> Blame | None:
        """No line of the port has the wrong value: it handed something over under this name, or nothing."""
        if not containers:
            return self.lost(row)
        decided = self._decision(containers)
        if decided is not None:
            return Blame(decided, self.nearest(decided), "decides otherwise for the wrong rows than for the right ones")
        return self.lost(row) or Blame(containers[-1], self.nearest(containers[-1]), "is the last to hold this row")

    def _decision(self, containers: list[int]) -> int | None:
        """The truth value that all wrong rows have and no right one has (after Liblit and others, PLDI 2005)."""
        events, bad = self.port.trace.events, set(self.wrong)
        right = self.port.emissions.keys() - bad
        best: tuple[int, int] | None = None
        for container in (c for c in dict.fromkeys(containers) if self.port.role(c)[1] != "Store"):
            members = {key: member for key, member in events[container].members if key}
            if not bad <= members.keys() or not right & members.keys():
                continue
            seen = {key: self._flags(member) for key, member in members.items() if key in bad or key in right}
            common = set.intersection(*(set(seen[key]) for key in bad))
            for node, value in common:
                if any((node, value) in seen[key] for key in right & members.keys()):
                    continue
                votes = sum((node, not value) in seen[key] for key in right & members.keys())
                number = min(seen[key][node, value] for key in bad)
                best = max(best or (0, 0), (votes, -number))
        return -best[1] if best and best[0] else None

    def _flags(self, number: int) -> dict[tuple[int, bool | None], int]:
        """By node and truth value, the events that decided on the way to an event."""
        if number not in self._flags_of:
            flags = (n for n in self.port.slice(number) if self.port.trace.events[n].kind == "flag")
            self._flags_of[number] = {(e.node, e.value): n for n in flags if (e := self.port.trace.events[n])}
        return self._flags_of[number]

    def lost(self, row: str) -> Blame | None:
        """The first expression that leaves a row out of what it makes of the others."""
        events = self.port.trace.events
        for number, keys in self._keyed:
            if row in keys or not self.port.is_own(number) or self.port.role(number)[1] == "Store":
                continue  # a dictionary that is being filled has not got to it yet
            source = next((n for n in self._sources(number) if any(key for key, _ in events[n].members)), None)
            names = set() if source is None else {key for key, _ in events[source].members if key}
            if row in names and len(keys & names) * 2 > len(names) and not self._renamed(row, source, number):
                return Blame(number, self.nearest(number), "leaves this row out")
        return None

    def _renamed(self, row: str, source: int | None, number: int) -> bool:
        """Whether the row's tensor is there, under another name."""
        events = self.port.trace.events
        members = [] if source is None else events[source].members
        found = next((events[member].print for key, member in members if key == row), None)
        others = [events[member].print for key, member in events[number].members]
        return found is not None and any(other is not None and same(found, other) for other in others)

    def _sources(self, number: int, depth: int = 3) -> Iterator[int]:
        for source in self.port.trace.events[number].inputs:
            yield source
            if depth:
                yield from self._sources(source, depth - 1)

    def named_otherwise(self, row: str) -> Blame | None:
        """Of a row that the port alone has: the first expression that makes its name, which the reference never has."""
        names = {row, row.partition("/")[2]} - self._their_names()
        for number, event in enumerate(self.port.trace.events):
            made = {event.value} if event.kind == "text" else {key for key, _ in event.members}
            if made & names and self.port.is_own(number):
                return Blame(number, self.nearest(number), "makes a name that the reference does not have")
        return None

    def _their_names(self) -> set[str]:
        events = self.reference.trace.events
        keys = {key for event in events for key, _ in event.members if key}
        return keys | {event.value for event in events if event.kind == "text"}

    def misplaced(self) -> Blame | None:
        """The first container that holds one row of the reference under the name of another."""
        expected = {name: e.print for name, e in self.reference.emissions.items() if e.print and e.print.size >= FEW}
        events = self.port.trace.events
        for number, _ in self._keyed:
            for key, member in events[number].members:
                found = events[member].print
                if key not in expected or found is None or same(found, expected[key]) or not self.port.is_own(number):
                    continue
                if not reordered(found, expected[key]) and any(same(found, other) for other in expected.values()):
                    return Blame(number, self.nearest(number), MISPLACED)
        return None
