"""From a replay to the modules whose own code is wrong, forwards and backwards."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from align.compare.statistics import compare
from align.locate.divergence import Divergence, Where
from align.record.calls import ROOT_MODULE
from align.record.replay import LOSS, tensor_name
from align.record.store import Store

# On the reference's own inputs one module of a correct port is off by a few float64 ulp (worst of PiT: 8e-16); this is
# 12 bits above an ulp, and far below the least bug known (a constant rounded to seven digits: 6.8e-8).
LIMIT = 2.0**-40

# A gradient this much smaller than the module's others is rounding of a sum that is zero (the key bias of attention).
NEGLIGIBLE = 2.0**-30


@dataclass(frozen=True)
class Finding:
    """One tensor of a replay that is not the reference's: the call whose own code made it, and what it is."""

    owner: str
    tensor: str
    what: str
    error: float
    backward: bool
    near: str | None = None  # the child call at which it showed
    uncalled: str | None = None  # a child call that the reference makes and the port does not


def made_by(name: str, calls: Mapping[str, Any]) -> str:
    """The call whose own code makes a tensor of a replay; empty for what the model is given.

    Its outputs and its children's inputs; backwards, the gradients of its inputs, of its children's outputs and of its
    parameters.
    """
    tensor = tensor_name(name)
    if tensor is None:
        return _holder(name.removeprefix("grad/"), calls)
    if (tensor.what == "out") is not tensor.gradient:
        return tensor.label
    parent: str = calls[tensor.label]["parent"] if tensor.label in calls else ""
    return parent or (LOSS if tensor.gradient else "")


def _holder(parameter: str, calls: Mapping[str, Any]) -> str:
    """The innermost call that was made of the modules that hold a parameter."""
    module = parameter.rpartition(".")[0]
    while module and module not in calls:
        module = module.rpartition(".")[0]
    return module or ROOT_MODULE


def locate(
    reference: Mapping[str, np.ndarray], port: Store, places: Mapping[str, Mapping[str, Any]], every: bool = False
) -> list[Finding]:
    """Of every call whose own code is wrong the first finding, in the order in which the port ran them.

    `places` holds, by side, the calls that were made. With `every`, all findings forwards of a call, each where it
    shows: where much code lies between two boundaries, they may have causes of their own.
    """
    calls = places["paddle"]
    findings: dict[str, list[Finding]] = {}
    for finding in _findings(reference, port, places["torch"], calls):
        findings.setdefault(finding.owner, []).append(finding)
    answer = []
    for owner in [*calls, LOSS]:
        own = findings.get(owner, [])
        # A call that is not made is a fault only if something comes out wrong.
        shown = [finding for finding in own if finding.uncalled is None]
        if shown:
            # What a module does wrong forwards makes its gradients wrong too: those tell nothing more.
            first = min(shown, key=lambda finding: finding.backward)
            missed = next((finding.uncalled for finding in own if finding.uncalled), None)
            if missed and not first.backward:
                first = replace(first, what=f"it never calls {missed}", uncalled=missed)
            answer.append(_not_given(first, reference, port, calls) or first)
            answer += [finding for finding in shown if every and finding is not first and not finding.backward]
    return sorted(answer, key=_time(calls)) if every else answer


def _not_given(
    finding: Finding, reference: Mapping[str, np.ndarray], port: Store, calls: Mapping[str, Any]
) -> Finding | None:
    """Where a call makes something else because its caller gives it fewer tensors (no mask, say): that is the fault."""
    label = finding.owner
    parent = calls[label]["parent"] if label in calls else ""
    if finding.backward or finding.uncalled or not parent:
        return None
    given, expected = (_inputs(names, label) for names in (port, reference))
    if len(given) >= len(expected):
        return None
    what = f"what it hands to {label}: {len(given)} of {len(expected)} tensors"
    return replace(finding, owner=parent, tensor=expected[-1], what=what, near=label)


def _inputs(names: Iterable[str], label: str) -> list[str]:
    """The names of the tensors that a call is given."""
    found = ((name, tensor_name(name)) for name in names if name.startswith(f"{label}/in"))
    return [
        name
        for name, tensor in found
        if tensor and (tensor.label, tensor.what) == (label, "in") and not tensor.gradient
    ]


def _time(calls: Mapping[str, Mapping[str, Any]]) -> Callable[[Finding], tuple[bool, int, int]]:
    """When a finding shows in the port's pass: forwards where a child is called, or at the end of the owner's call."""
    begins = {label: number for number, label in enumerate(calls)}
    ends = dict(begins)
    for label in reversed(list(calls)):
        around = calls[label]["parent"]
        if around in ends:
            ends[around] = max(ends[around], ends[label])
    last = len(begins)

    def time(found: Finding) -> tuple[bool, int, int]:
        if found.near in begins:
            return found.backward, begins[found.near], 0
        # Calls that end with the same one end in turn, the innermost first.
        return found.backward, ends.get(found.owner, last), 1 + last - begins.get(found.owner, 0)

    return time


def _findings(
    reference: Mapping[str, np.ndarray], port: Store, reference_calls: Mapping[str, Any], calls: Mapping[str, Any]
) -> Iterator[Finding]:
    begun = [label for label in reference_calls if label in calls]
    # What would have come after an exception of the port's is not left out.
    ended = any("raised" in place for place in calls.values()) and begun
    for label, place in reference_calls.items():
        if ended and label == ended[-1]:
            break
        parent = place["parent"]
        if label not in calls and parent in calls and not _identity(reference, label):
            yield Finding(parent, f"{label}/out", f"it never calls {label}", 1.0, False, uncalled=label)
    for name in reference:
        tensor = tensor_name(name)
        if tensor is None:
            continue
        label, what, gradient = tensor.label, tensor.what, tensor.gradient
        parent = calls[label]["parent"] if label in calls else ""
        if name not in port:
            if gradient and label in calls:
                # The gradient of an output is made by the parent's code, that of an input by the module's own.
                owner = label if what == "in" else parent or LOSS
                yield Finding(owner, name, f"no gradient reaches {what}put of {label}", 1.0, True, label)
            elif what == "out" and not gradient and label in calls and "raised" not in calls[label]:
                yield Finding(label, name, "an output that it does not make", 1.0, False)
            continue
        error = own_error(port[name], reference[name])
        arrives = what == "in" and not gradient
        if error > LIMIT:
            if label == LOSS:
                yield Finding(LOSS, name, "the loss of the reference's outputs", error, False)
            elif gradient:
                owner = label if what == "in" else parent or LOSS
                told = f"the gradient at the {what}put of {label}{_scaled(port[name], reference[name])}"
                yield Finding(owner, name, told, error, True, label)
            elif arrives:
                if parent:
                    yield Finding(parent, name, f"what it hands to {label}", error, False, label)
            else:
                yield Finding(label, name, "its output", error, False)
        elif arrives and parent and f"{name}/grad" in reference and not (port.entries[name].facts or {}).get("history"):
            what_it_is = f"no gradient can flow back from the input of {label}: it is detached"
            yield Finding(parent, name, what_it_is, 1.0, True, label)
    yield from _parameters(reference, port, calls)


def _identity(reference: Mapping[str, np.ndarray], label: str) -> bool:
    """Whether a call gives back what it was given: leaving it out changes nothing."""
    given, made = reference.get(f"{label}/in"), reference.get(f"{label}/out")
    return given is not None and made is not None and np.array_equal(given, made)


def _parameters(reference: Mapping[str, np.ndarray], port: Store, calls: Mapping[str, Any]) -> Iterator[Finding]:
    scales: dict[str, float] = {}
    names = {name.removeprefix("grad/") for name in (*reference, *port) if name.startswith("grad/")}
    for name in names:
        owner = _holder(name, calls)
        key = f"grad/{name}"
        if key in reference:
            scales[owner] = max(scales.get(owner, 0.0), rms(reference[key]))
    for name in sorted(names):
        owner, key = _holder(name, calls), f"grad/{name}"
        if key not in port:
            yield Finding(owner, key, f"parameter {name} gets no gradient", 1.0, True)
        elif key not in reference:
            yield Finding(owner, key, f"parameter {name} gets a gradient, in the reference it has none", 1.0, True)
        else:
            error = own_error(port[key], reference[key], NEGLIGIBLE * scales.get(owner, 0.0))
            if error > LIMIT:
                told = f"the gradient of parameter {name}{_scaled(port[key], reference[key])}"
                yield Finding(owner, key, told, error, True)


def _scaled(port: np.ndarray, reference: np.ndarray) -> str:
    """`, 2 times the reference's`, if it is a constant multiple; otherwise empty."""
    if port.shape != reference.shape or not reference.any():
        return ""
    first, second = port.reshape(-1).astype(np.float64), reference.reshape(-1).astype(np.float64)
    factor = float(first @ second / (second @ second))
    if np.linalg.norm(first - factor * second) > LIMIT * np.linalg.norm(first) or factor == 0:
        return ", zero" if not first.any() else ""
    return f", {factor:.12g} times the reference's"


def rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0


def own_error(port: np.ndarray, reference: np.ndarray, floor: float = 0.0) -> float:
    """Relative Frobenius error; infinite for another shape; 0 where both are negligible beside `floor` (an rms)."""
    if port.shape != reference.shape:
        return float("inf")
    difference = compare(port, reference)
    if not difference.nonfinite_equal:
        return float("inf")
    if difference.reference_rms < floor and difference.candidate_rms < floor:
        return 0.0
    return difference.rel


def divergence(step: str, finding: Finding, places: Mapping[str, Mapping[str, Any]]) -> Divergence:
    """What the replay alone can say: the lines of calls, by side and call in `places`."""
    where = {side: _where(places[side], finding.owner, finding.near) for side in ("paddle", "torch")}
    return Divergence(step, finding.owner, finding.what, finding.error, where["paddle"], where["torch"])


def _where(calls: Mapping[str, Any], owner: str, near: str | None) -> Where | None:
    """The line of the call at which the error shows; without one the module's own return, or else its own call."""
    call = calls.get(near or owner) or calls.get(owner)
    if not call:
        return None
    own = calls.get(owner) or call
    place = (None if near else own.get("returned")) or call["call"]
    return Where(**place, built=own["built"]) if place else None
