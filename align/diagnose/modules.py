"""Evidence about a module that is wrong: from its replay, both sides' traces, and both sides' settings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from align.diagnose.cause import Cause
from align.diagnose.evidence import Evidence
from align.diagnose.prove import Treat, diagnose
from align.diagnose.traced import (
    beside,
    boundaries,
    goes_into_the_same,
    operands,
    operation_pairs,
    results,
    traced_values,
    way,
)
from align.locate.divergence import Divergence, Where
from align.locate.match import Values, made_by
from align.locate.modules import NEGLIGIBLE, Finding, own_error, rms
from align.locate.modules import made_by as of_call
from align.locate.pairs import Pairs
from align.record.calls import ROOT_MODULE
from align.record.trace import Operation

Settings = Mapping[str, Mapping[str, Any]]  # of one side, by dotted path: see `align.record.settings`


@dataclass(frozen=True)
class ModuleEvidence(Evidence):
    """A tensor of a module that is wrong on the reference's own inputs.

    `inputs` are what it was made from on the port's side, `theirs` on the reference's; both lists of (name, array).
    `own` are the port's arrays on the way to it, by name. `settings`
    are those of the module by side, see `align.record.settings`; `modules` the port's calls whose code counts as its
    own; `gradients` the names in a replay of what that code sends back; `extra` its calls that the reference does not
    make.
    """

    finding: Finding | None = None
    module: str = ""  # the port's dotted path
    inputs: Sequence[tuple[str, np.ndarray]] = ()
    theirs: Sequence[tuple[str, np.ndarray]] = ()
    own: Mapping[str, np.ndarray] = field(default_factory=dict)
    operation: Operation | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    built: Mapping[str, Any] | None = None
    code: str = ""  # of the blamed statement
    port_values: Values | None = None
    reference_values: Values | None = None
    replays: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    modules: Sequence[str] = ()
    gradients: Sequence[str] = ()
    extra: Sequence[str] = ()

    @property
    def constructor(self) -> Where | None:
        """The call that gave one of the framework's own layers its settings; None for a user's module."""
        built, port = self.built, self.settings.get("paddle", {})
        if not built or not port.get("framework"):
            return None
        return Where(built["file"], built["line"], built["end_line"], built["code"], built)

    def untreated(self) -> float:
        return self.after(self.replays["paddle"])

    def after(self, replay: Mapping[str, np.ndarray]) -> float:
        """Backwards the worst of all gradients that the module's own code sends back."""
        if not self.gradient:
            return super().after(replay)
        reference = self.replays["torch"]
        floor = NEGLIGIBLE * max((rms(reference[name]) for name in self.gradients if name in reference), default=0.0)
        worst = 0.0
        for name in self.gradients:
            if (name in reference) is not (name in replay):
                return float("inf")
            worst = max(worst, own_error(replay[name], reference[name], floor if name.startswith("grad/") else 0.0))
        return worst


@dataclass(frozen=True)
class Look:
    """All that a replay with traces left, by side."""

    step: str
    values: Mapping[str, Values]
    replays: Mapping[str, Mapping[str, np.ndarray]]
    pairs: Pairs
    settings: Mapping[str, Settings]


def with_causes(found: Sequence[tuple[Finding, Divergence]], look: Look, treat: Treat) -> list[Divergence]:
    """The same divergences with their proven causes; a cause that knows the defining line has it as the port's.

    Of those with one source line the first is diagnosed; for the others only the family that explained it is asked.
    """
    groups: dict[object, list[int]] = {}
    for number, (_, divergence) in enumerate(found):
        groups.setdefault(_place(divergence), []).append(number)
    first = [members[0] for members in groups.values()]
    causes = dict(zip(first, diagnose([list(_evidence(*found[n], look)) for n in first], treat), strict=True))
    others = {n: cause.family for m in groups.values() if (cause := causes[m[0]]) for n in m[1:]}
    cases = [list(_evidence(*found[n], look)) for n in others]
    causes |= dict(zip(others, diagnose(cases, treat, list(others.values())), strict=True))
    return [_with(divergence, causes.get(number)) for number, (_, divergence) in enumerate(found)]


def _place(divergence: Divergence) -> object:
    port = divergence.port
    built = port.built if port else None
    return (port.file, port.line, built and (built["file"], built["line"])) if port else id(divergence)


def _with(divergence: Divergence, cause: Cause | None) -> Divergence:
    return replace(divergence, cause=cause.as_json(), port=cause.line or divergence.port) if cause else divergence


def _evidence(finding: Finding, divergence: Divergence, look: Look) -> Iterator[Evidence]:
    """First the operation that went its own way, with its counterpart; then the tensor at the module's boundary."""
    calls = [call for call in (finding.owner, finding.uncalled) if call]
    own = {side: look.pairs.own(side, calls) for side in ("torch", "paddle")}
    whole = _at_the_boundary(finding, divergence, look, own)
    port, reference, values = whole.port, whole.reference, look.values
    if finding.backward or port is None or reference is None:
        yield whole
        return
    for mine, other in operation_pairs(values, own, port, reference):
        read, expected = operands(values["paddle"], mine), operands(values["torch"], other)
        inside = replace(whole, name="", inputs=read, theirs=expected, numbers={**whole.numbers, **_sizes(read)})
        for made, wanted in results(values, mine, other):
            unlike = mine.name != other.name or not goes_into_the_same(values, own, mine, other)
            yield replace(inside, port=made, reference=wanted, operation=mine, unlike=unlike)
        for made, wanted in beside(values, own, mine, other):
            yield replace(inside, port=made, reference=wanted)
    if last := made_by(values["torch"], reference, own["torch"]):
        read = operands(values["torch"], last)
        yield replace(whole, name="", inputs=read, theirs=read, numbers={**whole.numbers, **_sizes(read)})
    yield whole


def _at_the_boundary(
    finding: Finding, divergence: Divergence, look: Look, own: Mapping[str, Sequence[str]]
) -> ModuleEvidence:
    """The tensor in which the finding was made."""
    pairs, replays, port = look.pairs, look.replays, divergence.port
    tensors = {side: replays[side].get(finding.tensor) for side in ("paddle", "torch")}
    module = {"paddle": _module(pairs.ported.get(finding.owner, finding.owner)), "torch": _module(finding.owner)}
    settings = {side: look.settings[side].get(path, {}) for side, path in module.items()}
    given = boundaries(replays["torch"], finding.owner, pairs.places["torch"], finding.backward)
    inputs = list(given.items())
    on_the_way: dict[str, np.ndarray] = {}
    if tensors["paddle"] is not None and not finding.backward:
        for operation in way(look.values["paddle"], own["paddle"], tensors["paddle"]):
            on_the_way |= operands(look.values["paddle"], operation)
    paired = {pairs.ported.get(call) for call in pairs.places["torch"]}
    children = (call for call, place in pairs.calls["paddle"].items() if place["parent"] in own["paddle"])
    return ModuleEvidence(
        look.step,
        finding.tensor,
        tensors["paddle"],
        tensors["torch"],
        given | traced_values(look.values["torch"], own["torch"], finding.backward),
        _numbers(settings, given),
        gradient=finding.backward,
        finding=finding,
        module=module["paddle"],
        inputs=inputs,
        theirs=inputs,
        own=on_the_way,
        settings=settings,
        built=port.built if port else None,
        code=port.code if port else "",
        port_values=look.values["paddle"],
        reference_values=look.values["torch"],
        replays=replays,
        modules=own["paddle"],
        gradients=_gradients(finding, replays, pairs) if finding.backward else (),
        extra=[call for call in children if call not in paired],
    )


def _module(label: str) -> str:
    """The dotted path of the module of a call, empty for the model itself."""
    path = label.partition("#")[0]
    return "" if path == ROOT_MODULE else path


def _gradients(finding: Finding, replays: Mapping[str, Mapping[str, np.ndarray]], pairs: Pairs) -> list[str]:
    names = {
        name for replay in replays.values() for name in replay if name.startswith("grad/") or name.endswith("/grad")
    }
    return sorted(name for name in names if of_call(name, pairs.places["torch"]) == finding.owner)


def _numbers(settings: Mapping[str, Mapping[str, Any]], given: Mapping[str, np.ndarray]) -> dict[str, float]:
    found: dict[str, float] = {}
    for side, whose in (("torch", "the reference's "), ("paddle", "the port's ")):
        for name, value in settings[side].get("attributes", {}).items():
            if type(value) in (int, float) and np.isfinite(value) and value not in (0, 1):
                word = name.strip("_")
                if found.get(word, value) != value:
                    word = whose + word
                found[word] = float(value)
    for name, array in given.items():
        for axis, size in enumerate(array.shape):
            if size > 1:
                found.setdefault("batch size" if axis == 0 else f"axis {axis} of {name}", float(size))
    return found


def _sizes(read: Sequence[tuple[str, np.ndarray]]) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for name, array in read:
        sizes |= {f"axis {axis} of {name}": float(size) for axis, size in enumerate(array.shape) if size > 1}
    return sizes
