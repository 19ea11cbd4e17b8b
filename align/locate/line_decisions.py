"""Truth values that decide about each of many things, such as which parameters decay, in both sides' traces."""

from collections.abc import Iterator
from pathlib import Path

from align.locate.line_pair import Blame, Pair
from align.locate.line_side import Side

DECIDES = "decides otherwise than the reference, for the wrong rows and no others"
OF_THE_SAME = "decides otherwise than the reference, about the same thing"
GATHERS = ("ListComp", "SetComp", "DictComp", "GeneratorExp")

# A variable's name and value, as far as it can be told; a kind of expression, its text, its truth value, its event.
Known = tuple[str, int, str]
Told = tuple[str, str, bool, int]


class Decisions(Pair):
    """Compares what was decided name by name, where no value of a line is wrong: the choice is hidden in an object."""

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
                    return Blame(events[name], others[name], DECIDES)
        return None

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
        current: dict[tuple[str, str], str] = {}  # by function, the name that its loop has come to
        bindings, at = side.trace.bindings, 0
        for number, event in enumerate(side.trace.events):
            while at < len(bindings) and bindings[at].after <= number:
                value = side.trace.events[bindings[at].event].value
                if value in names:
                    current[bindings[at].file, bindings[at].function] = value
                at += 1
            node = side.trace.nodes[event.node]
            name = current.get((node.file, node.function))
            if name is not None and event.kind == "flag" and isinstance(event.value, bool):
                told.setdefault(event.node, {})[name] = event.value
                events.setdefault(event.node, {})[name] = number
        for decision, values in told.items():
            if len(set(values.values())) == 2:  # what is one for all decides nothing
                yield values, events[decision]
