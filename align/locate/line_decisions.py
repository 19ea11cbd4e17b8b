"""Truth values that decide about each of many named things, such as which parameters decay, in both sides' traces."""

from collections.abc import Iterator

from align.locate.line_pair import Blame, Pair
from align.locate.line_side import Side

DECIDES = "decides otherwise than the reference, for the wrong rows and no others"


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
