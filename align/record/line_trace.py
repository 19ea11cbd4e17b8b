"""What a line trace holds: every expression that a step's own source lines evaluated, and what it emitted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from align.record.acts import Act
from align.record.fingerprint import Fingerprint, from_json
from align.record.instrument import Node
from align.record.source import Place


@dataclass
class Event:
    """One evaluation of a node: what it was made from, and its value.

    `kind`: `number` (with a fingerprint), `flag` (a truth value or None), `text`, `container`, or `opaque`. The
    `members` of a container are (key or None, event). `again`: no new value, but the first of its inputs after a method
    has changed it.
    """

    node: int
    inputs: list[int]
    kind: str
    print: Fingerprint | None = None
    value: Any = None  # of a flag or text
    members: list[tuple[str | None, int]] = field(default_factory=list)
    again: bool = False


@dataclass(frozen=True)
class Emission:
    """A tensor that the step handed to the harness, after so many events; `event` made it, where that is known."""

    name: str
    after: int
    print: Fingerprint | None
    event: int | None


@dataclass(frozen=True)
class Bound:
    """A variable of a function was given the value of an event by a node; an argument by the call, if it is traced.

    That was after so many events.
    """

    file: str
    function: str
    name: str
    event: int
    node: int | None
    after: int = 0


@dataclass
class LineTrace:
    """What one side evaluated in one step.

    `own` are the files of the side's package; `rounds` say, by `For` node, how often each run of it went round; `left`,
    by `Return` and `Yield` node, how often it was run; `raised` is the place where an exception left the side's code,
    if one did; `full` tells of a trace that ended early.
    """

    nodes: list[Node] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    emissions: list[Emission] = field(default_factory=list)
    own: tuple[str, ...] = ()
    rounds: dict[str, list[int]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    raised: Mapping[str, Any] | None = None
    bindings: list[Bound] = field(default_factory=list)
    full: bool = False
    acts: list[Act] = field(default_factory=list)  # of a step with a training loop

    def write(self, path: Path) -> None:
        """As JSON: rows of plain values, each fingerprint once."""
        prints: dict[Fingerprint | None, int] = {}

        def number(found: Fingerprint | None) -> int:
            return prints.setdefault(found, len(prints))

        events = [(e.node, e.inputs, e.kind, number(e.print), e.value, e.members, e.again) for e in self.events]
        emissions = [(e.name, e.after, number(e.print), e.event) for e in self.emissions]
        nodes = [tuple(getattr(node, field.name) for field in fields(Node)) for node in self.nodes]
        bindings = [(b.file, b.function, b.name, b.event, b.node, b.after) for b in self.bindings]
        acts = [(a.kind, a.detail, number(a.print), a.row, a.place and a.place.as_json()) for a in self.acts]
        table = [found and found.as_json() for found in prints]
        whole = {
            "acts": acts,
            "nodes": nodes,
            "events": events,
            "emissions": emissions,
            "prints": table,
            "bindings": bindings,
        }
        whole |= {"own": self.own, "rounds": self.rounds, "left": self.left, "raised": self.raised}
        path.write_text(json.dumps(whole))


def read(path: Path) -> LineTrace:
    """What `LineTrace.write` wrote."""
    whole = json.loads(path.read_text())
    prints = [from_json(row) for row in whole["prints"]]
    return LineTrace(
        [Node(*map(_plain, row)) for row in whole["nodes"]],
        [Event(node, inputs, kind, prints[p], *rest) for node, inputs, kind, p, *rest in whole["events"]],
        [Emission(name, after, prints[p], event) for name, after, p, event in whole["emissions"]],
        tuple(whole["own"]),
        whole["rounds"],
        whole["left"],
        whole["raised"],
        [Bound(*row) for row in whole["bindings"]],
        acts=[Act(kind, detail, prints[p], row, at and Place(**at)) for kind, detail, p, row, at in whole["acts"]],
    )


def _plain(value: Any) -> Any:
    """As it was before JSON made a list of it."""
    return tuple(value) if isinstance(value, list) else value
