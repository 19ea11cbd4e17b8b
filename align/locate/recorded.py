"""Where the port parts from a reference that cannot be run again: what rows alone tell.

A module whose inputs are all the reference's, and one of whose outputs is not, computes something else: itself, or the
innermost module in it of which the same is true. Backwards it is the gradients of its outputs and of its inputs. Which
of its operations it is, rows do not tell.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.compare.runs import RAISED, Runs
from align.compare.verdict import StepVerdict, Verdict
from align.errors import AlignError
from align.locate.divergence import Divergence, Where
from align.pipeline import TWIN, Recorder
from align.record.calls import ROOT_MODULE
from align.record.store import Entry, StoreWriter
from align.steps import REPLAYABLE


@dataclass
class _Call:
    """Of one module call in one direction: the rows given to it, and made by it, each with whether it is wrong."""

    given: dict[str, bool] = field(default_factory=dict)
    made: dict[str, bool] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        return any(self.made.values()) and not any(self.given.values())


def from_rows(recorder: Recorder, result: Verdict, runs: Runs) -> Iterator[Divergence]:
    """Every module that computes something else, in the order of dependence; of steps without modules the first row."""
    places: Mapping[str, Any] | None = None
    told: set[str] = set()
    for step in result.steps:
        if step or not step.failing:
            continue
        found = _wrong_calls(step, runs.reference.step(step.step).entries) if step.step in REPLAYABLE else {}
        if found and places is None:
            places = _places(recorder)
        if not found:
            row = step.failing[0]
            yield Divergence(step.step, "", f"{row.name}: {row.reason}", math.inf, None, None)
        for call, what in found.items():
            module = call.partition("#")[0]
            if module not in told:
                told.add(module)
                yield Divergence(step.step, module, what, math.inf, _where((places or {}).get(call)), None)


def _wrong_calls(step: StepVerdict, entries: Mapping[str, Entry]) -> dict[str, str]:
    """By call what is wrong with it: forward, and where nothing is wrong there, backward."""
    wrong = {row.name: row.bad for row in step.rows if row.name != RAISED}
    for prefix, given, made in (("activation/", "in", "out"), ("activation_grad/", "out", "in")):
        calls = _calls(wrong, entries, prefix, given)
        if prefix != "activation/":
            for name, bad in wrong.items():
                module = name.removeprefix("grad/").rpartition(".")[0]
                if name.startswith("grad/") and module in calls:
                    calls[module].made[name] = bad
        inner = [call for call, told in calls.items() if told.wrong]
        inner = [call for call in inner if not any(_is_inside(other, call) for other in inner)]
        if inner:
            return {call: _what(call, calls, made) for call in inner}
    return {}


def _calls(wrong: Mapping[str, bool], entries: Mapping[str, Entry], prefix: str, given: str) -> dict[str, _Call]:
    calls: dict[str, _Call] = {}
    for name, entry in entries.items():
        if not name.startswith(prefix):
            continue
        call, _, rest = name.removeprefix(prefix).partition("/")
        origin = (entry.facts or {}).get("same_as", name)  # a row that is another's second name was judged there
        told = calls.setdefault(call, _Call())
        (told.given if rest.partition("/")[0] == given else told.made)[name] = wrong.get(origin, False)
    return calls


def _what(call: str, calls: Mapping[str, _Call], made: str) -> str:
    """Its output; or, where a module in it was given something wrong already, what it hands to that."""
    inside = (other for other, told in calls.items() if _is_inside(other, call) and any(told.given.values()))
    if (child := next(inside, None)) is not None:
        return f"what it hands to {child}" if made == "out" else f"the gradient that it hands to {child}"
    if made == "out":
        return "its output, on inputs that are the reference's"
    gradients = [
        name.removeprefix("grad/") for name, bad in calls[call].made.items() if bad and name.startswith("grad/")
    ]
    return f"the gradient of {gradients[0]}" if gradients else "the gradient of its input"


def _is_inside(call: str, other: str) -> bool:
    module = _module(other)
    return call != other and (module == ROOT_MODULE or call.startswith(f"{module}."))


def _module(call: str) -> str:
    return call.partition("#")[0]


def _places(recorder: Recorder) -> Mapping[str, Any]:
    """By call of the port's model, where it is called and made: one pass in which nothing is replaced."""
    with tempfile.TemporaryDirectory(dir=recorder.options.folder, prefix=".partial-places-") as name:
        with StoreWriter(Path(name), "forward-torch"):
            pass
        try:
            answer = recorder.process("paddle").request("replay", run=f"paddle-{TWIN}", step="forward", folder=name)
        except AlignError:  # a model that cannot go forward alone
            return {}
        return answer["places"]


def _where(place: Mapping[str, Any] | None) -> Where | None:
    """Where a module is called, or, if a container of the framework calls it, where it was made."""
    if not place or not (at := place["call"] or place["built"]):
        return None
    return Where(**{key: at[key] for key in ("file", "line", "end_line", "code")}, built=place["built"])
