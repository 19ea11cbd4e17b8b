"""Truth values that decide about each of many things, such as which parameters decay, in both sides' traces."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from align.locate.line_pair import NEW, Blame, Pair
from align.locate.line_side import Side

DECIDES = "decides otherwise than the reference, for the wrong rows and no others"
OF_THE_SAME = "decides otherwise than the reference, about the same thing"
FEWEST = 4  # rows, wrong ones and right ones, that can be told apart
GATHERS = ("ListComp", "SetComp", "DictComp", "GeneratorExp")

# A variable's name and value, as far as it can be told; a kind of expression, its text, its truth value, its event.
Known = tuple[str, int, str]
Told = tuple[str, str, bool, int]


class Decisions(Pair):
    """Compares what was decided name by name, where no value of a line is wrong: the choice is hidden in an object."""

    @cached_property
    def decided_otherwise(self) -> Blame | None:
        """The first expression of the port that some decision of the reference equals but for the names of wrong rows.

        Or but for the names of right ones, if it says the opposite. There must be names of both kinds.
        """
        bad = {part for row in self.wrong for part in row.split("/")}
        theirs = list(self._decisions(self.reference))
        for told, events in self._decisions(self.port):
            wrong = bad & told.keys()
            if not wrong or not told.keys() - wrong:
                continue
            for expected, others in theirs:
                unlike = {name for name, value in told.items() if expected.get(name) is not value}
                if told.keys() == expected.keys() and unlike in (wrong, told.keys() - wrong):
                    name = min(wrong, key=events.__getitem__)
                    named = ((n, self._other_names(n)) for n in sorted(self.port.slice(events[name])))
                    for number, there in named:
                        if there is not None:  # it decides by these
                            return Blame(number, there, NEW)
                    return Blame(events[name], others[name], DECIDES)
        return None

    def _other_names(self, number: int) -> int | None:
        """The reference's event that does the same, where both hold texts only, but others."""
        mine = _texts(self.port, number)
        same_role = self.reference.of_role(self.port.role(number)) if mine else []
        theirs = {n: _texts(self.reference, n) for n in same_role}
        unequal = all(texts and texts != mine for texts in theirs.values())
        return next(iter(theirs)) if theirs and unequal else None

    def told_apart(self, maker: int) -> Blame | None:
        """The truth value that all wrong rows which one expression made were made under, and no right one.

        That is the last of its own expression, in the same function, before a row's value was made. What the reference
        decides too says nothing.
        """
        node = self.port.trace.events[maker].node
        if node not in self._apart:
            self._apart[node] = self._told_apart(node)
        return self._apart[node]

    @cached_property
    def _apart(self) -> dict[int, Blame | None]:
        return {}

    def _told_apart(self, node: int) -> Blame | None:
        made = {n: name for n, name in self._rows_made.items() if self.port.trace.events[n].node == node}
        bad = set(self.wrong)
        seen = self._seen_before(made)
        wrong = [told for name, told in seen.items() if name in bad]
        right = [told for name, told in seen.items() if name not in bad]
        if len(wrong) < FEWEST or len(right) < FEWEST:
            return None
        for flag, (value, number) in wrong[0].items():
            apart = all(told.get(flag, (None,))[0] is value for told in wrong)
            apart = apart and all(flag in told and told[flag][0] is not value for told in right)
            if apart and not self.reference.of_role(self.port.role(number)):
                return Blame(number, None, DECIDES)
        return None

    @cached_property
    def _rows_made(self) -> dict[int, str]:
        """By the side's own event that made it last: a row."""
        found: dict[int, str] = {}
        for name, emission in self.port.emissions.items():
            maker = None if emission.event is None else self.port.last_maker(emission.event)
            if maker is not None and self.port.is_own(maker):
                found[maker] = name
        return found

    def _seen_before(self, made: Mapping[int, str]) -> dict[str, dict[int, tuple[bool, int]]]:
        """By row, the last truth value of every expression in the function that made it, and its event."""
        last: dict[tuple[str, str], dict[int, tuple[bool, int]]] = {}
        found: dict[str, dict[int, tuple[bool, int]]] = {}
        for number, event in enumerate(self.port.trace.events):
            node = self.port.trace.nodes[event.node]
            if event.kind == "flag" and isinstance(event.value, bool):
                last.setdefault((node.file, node.function), {})[event.node] = event.value, number
            if number in made:
                found[made[number]] = dict(last.get((node.file, node.function), {}))
        return found

    def chosen_otherwise(self, here: int) -> Blame | None:
        """Of what gathers things by a condition: the first truth value that a function tells otherwise of equals."""
        if self.port.role(here)[1] not in GATHERS:
            return None
        expected = self._told(self.reference)
        for key, told in self._told(self.port).items():
            for (*mine, value, number), (*other, wanted, there) in zip(told, expected.get(key, ()), strict=False):
                if mine != other:
                    break
                if value is not wanted:
                    return Blame(number, there, OF_THE_SAME)
        return None

    def _told(self, side: Side) -> dict[tuple[str, str, frozenset[Known]], list[Told]]:
        """The truth values of the side's own functions, by file, function and the values of its variables meanwhile."""
        found: dict[tuple[str, str, frozenset[Known]], list[Told]] = {}
        variables: dict[tuple[str, str], dict[str, Known]] = {}
        bindings, at = side.trace.bindings, 0
        for number, event in enumerate(side.trace.events):
            while at < len(bindings) and bindings[at].after <= number:
                bound = bindings[at]
                at += 1
                value = side.trace.events[bound.event].print
                if value is not None:
                    known = bound.name, value.size, f"{value.projections[0]:.9e}"
                    variables.setdefault((bound.file, bound.function), {})[bound.name] = known
            if event.kind != "flag" or not isinstance(event.value, bool) or not side.is_own(number):
                continue
            node = side.trace.nodes[event.node]
            inside = frozenset(variables.get((node.file, node.function), {}).values())
            if inside:
                told = node.op, node.text, event.value, number
                found.setdefault((Path(node.file).name, node.function, inside), []).append(told)
        return found

    def _decisions(self, side: Side) -> Iterator[tuple[dict[str, bool], dict[str, int]]]:
        """Of each expression in a loop over names, the truth value by name, and the events; as they come first."""
        names = {part for row in side.emissions for part in row.split("/")}
        told: dict[int, dict[str, bool]] = {}
        events: dict[int, dict[str, int]] = {}
        by_loop: dict[int, str] = {}  # the name that a `for` has come to
        by_function: dict[tuple[str, str], str] = {}  # the one that was bound last
        bindings, at = side.trace.bindings, 0
        for number, event in enumerate(side.trace.events):
            while at < len(bindings) and bindings[at].after <= number:
                bound, value = bindings[at], side.trace.events[bindings[at].event].value
                at += 1
                if value in names:
                    by_function[bound.file, bound.function] = value
                    by_loop |= {} if bound.node is None else {bound.node: value}
            node = side.trace.nodes[event.node]
            if event.kind != "flag" or not isinstance(event.value, bool):
                continue
            around = (by_loop[loop] for loop in node.loops if loop in by_loop)
            name = next(around, by_function.get((node.file, node.function)))
            if name is not None:
                told.setdefault(event.node, {})[name] = event.value
                events.setdefault(event.node, {})[name] = number
        for decision, values in told.items():
            if len(set(values.values())) == 2:  # what is one for all decides nothing
                yield values, events[decision]


def _texts(side: Side, number: int) -> set[str]:
    """The members of a container of texts; of anything else none."""
    members = [side.trace.events[member] for _, member in side.trace.events[number].members]
    return {member.value for member in members} if all(member.kind == "text" for member in members) else set()
