"""Which calls of two unlike module trees are each other's counterparts, so that one can run on the other's values.

A call is paired by what no bug upstream can change: the parameters that its module holds, which were loaded with equal
values on both sides, and the shapes of what goes in and out. A call without parameters is paired by its name below a
paired one. A user's mapping file comes before both. A call that finds no counterpart is *dissolved*: its boundary is
left alone, and its code counts as that of the nearest paired call around it. That loses no error, only a level.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.mapping import Mappings, port_module
from align.record import naming
from align.record.calls import ROOT_MODULE
from align.record.replay import LOSS, tensor_name

Places = Mapping[str, Mapping[str, Any]]
Signature = tuple[tuple[str, tuple[int, ...]], ...]  # (`in` or `out`, shape) of every tensor in order


@dataclass(frozen=True)
class Pairs:
    """Pairs of calls under the reference's labels.

    `ported` is the port's label by the reference's. `places` holds, by side, the paired calls, whose parents are paired
    ones; `inside`, by side and paired call, the labels of the calls whose code counts as its own; `calls`, by side, all
    calls under the side's own labels; `parameters`, by side, the reference's names by the side's own.
    """

    ported: Mapping[str, str]
    places: Mapping[str, Places]
    inside: Mapping[str, Mapping[str, Collection[str]]]
    calls: Mapping[str, Places]
    parameters: Mapping[str, Mapping[str, str]]
    alike: bool = False

    def own(self, side: str, calls: Collection[str]) -> list[str]:
        """The side's own labels of everything whose code counts as that of these paired calls."""
        return [label for call in calls for label in self.inside[side].get(call, (call,))]

    def statement(self, label: str) -> Mapping[str, Any] | None:
        """The port's statement, in the code of the paired call around it, that makes a paired call."""
        if label not in self.ported or not self.places["torch"][label]["parent"]:
            return None
        place = self.outermost("paddle", self.ported[label], self.places["torch"][label]["parent"])
        statement: Mapping[str, Any] | None = place and place["call"]
        return statement

    def outermost(self, side: str, own: str, owner: str) -> Mapping[str, Any] | None:
        """The call that a paired call makes itself and in which the side's call runs; None for the paired call."""
        around, calls = self.ported[owner] if side == "paddle" else owner, self.calls[side]
        while own in calls and own != around:
            if calls[own]["parent"] in ("", around):
                place: Mapping[str, Any] = calls[own]
                return place
            own = calls[own]["parent"]
        return None

    def boundaries(self, replay: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of what the reference left, what lies at paired calls; parameters' gradients, and the loss."""
        kept = {*self.places["torch"], LOSS}
        return {name: replay[name] for name in replay if (tensor := tensor_name(name)) is None or tensor.label in kept}

    def in_port_words(self, text: str, call: str | None) -> str:
        """A sentence about a call under the port's label."""
        return text.replace(call, self.ported.get(call, call)) if call else text

    def parameter(self, side: str, name: str) -> str:
        """The side's own name of a parameter of the reference."""
        return next((own for own, reference in self.parameters[side].items() if reference == name), name)

    def owner(self, label: str) -> str | None:
        """The paired call that a label of either side counts as; None for one that neither side has."""
        for side in ("paddle", "torch"):
            for owner, labels in self.inside[side].items():
                if label in labels:
                    return owner
        return None


def alike(places: Mapping[str, Places], parameters: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether the module trees can be replayed on each other: calls of one name stand under parents of one name.

    Not where modules that hold the same parameters are called, on each side under a name that the other has not.
    """
    common = places["torch"].keys() & places["paddle"].keys()
    functions_only = len(places["torch"]) == len(places["paddle"]) == 1
    if len(common) <= 1 and not functions_only:
        return False
    held = {side: _held(parameters[side]) for side in places}
    apart = {side: {held[side].get(label) for label in calls if label not in common} for side, calls in places.items()}
    if (apart["torch"] & apart["paddle"]) - {None}:
        return False
    return all(places["torch"][n]["parent"] == places["paddle"][n]["parent"] for n in common)


def same(places: Mapping[str, Places], parameters: Mapping[str, Mapping[str, str]]) -> Pairs:
    """Of like trees: every call is paired with the one of its name; what only the port calls counts as its caller's."""
    inside = {side: {label: [label] for label in calls} for side, calls in places.items()}
    for label in places["paddle"]:
        if label not in places["torch"]:
            around = next((above for above in _above(label, places["paddle"]) if above in places["torch"]), None)
            inside["paddle"].get(around or ROOT_MODULE, []).append(label)
    return Pairs({label: label for label in places["paddle"]}, places, inside, places, parameters, alike=True)


def pair(
    places: Mapping[str, Places],
    stored: Mapping[str, Mapping[str, tuple[int, ...]]],
    parameters: Mapping[str, Mapping[str, str]],
    mapping: Mappings,
    apart: Collection[str] = (),
) -> Pairs:
    """Pair the calls of unlike trees, but not those of the reference that are `apart`.

    By side: `stored` are the shapes of what the passes have left, by name; `parameters` the reference's name of every
    parameter by the side's own.
    """
    calls = {side: _calls(places[side], stored[side], parameters[side]) for side in ("torch", "paddle")}
    ported = {ROOT_MODULE: ROOT_MODULE}
    for label, call in calls["torch"].items():
        port = (port_module(mapping, call.module) or "") + call.again
        there = calls["paddle"].get(port)
        # What a user names is paired as it is; what is inside must take and give the same.
        if there and (call.module in mapping["modules"] or there.signature == call.signature):
            ported[label] = port
    chosen = frozenset(ported)
    ported |= _by_parameters(calls, ported)
    ported |= _by_parameters(calls, ported, shapes=False)  # where a size is wrong, all that follow are
    ported |= _by_name(calls, places["torch"], ported)
    ported = {label: port for label, port in ported.items() if label in chosen or label not in apart}
    _make_consistent(ported, places, chosen)
    kept, inside = _dissolved(ported, places, _uncalled(calls, ported, parameters["paddle"]))
    return Pairs(ported, kept, inside, places, parameters)


@dataclass(frozen=True)
class _Call:
    module: str
    again: str  # `#k` of a further call
    type: str
    parameters: frozenset[str]
    signature: Signature


def _held(parameters: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """By module the reference's names of the parameters that it and those inside it hold."""
    held: dict[str, set[str]] = {}
    for own, reference in parameters.items():
        parts = own.split(".")
        for end in range(len(parts)):
            held.setdefault(".".join(parts[:end]), set()).update(naming.parts(reference))
    return {module: frozenset(names) for module, names in held.items()}


def _uncalled(
    calls: Mapping[str, Mapping[str, _Call]], ported: Mapping[str, str], parameters: Mapping[str, str]
) -> list[str]:
    """The reference's calls of modules that the port has, by their parameters, but never calls."""
    called = {call.parameters for call in calls["paddle"].values()}
    idle = {*_held(parameters).values()} - called
    return [label for label, call in calls["torch"].items() if label not in ported and call.parameters in idle]


def _calls(places: Places, stored: Mapping[str, tuple[int, ...]], parameters: Mapping[str, str]) -> dict[str, _Call]:
    held = _held(parameters)
    signatures: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, shape in stored.items():
        if (tensor := tensor_name(name)) and not tensor.gradient:
            signatures.setdefault(tensor.label, []).append((tensor.what, tuple(shape)))
    found = {}
    for label, place in places.items():
        module, mark, count = label.partition("#")
        owned = held.get("" if module == ROOT_MODULE else module, frozenset())
        found[label] = _Call(module, mark + count, place["type"], owned, tuple(signatures.get(label, ())))
    return found


def _by_parameters(
    calls: Mapping[str, Mapping[str, _Call]], ported: Mapping[str, str], shapes: bool = True
) -> dict[str, str]:
    """Calls whose modules hold the same parameters and that take and give the same shapes, or as many tensors."""
    groups: dict[Any, dict[str, list[str]]] = {}
    done = {"torch": set(ported), "paddle": set(ported.values())}
    for side, side_calls in calls.items():
        for label, call in side_calls.items():
            if call.parameters and label not in done[side]:
                taken = call.signature if shapes else tuple(what for what, _ in call.signature)
                key = call.parameters, call.again, taken
                groups.setdefault(key, {"torch": [], "paddle": []})[side].append(label)
    found: dict[str, str] = {}
    for group in groups.values():
        theirs, ours = group["torch"], group["paddle"]
        if not shapes and (len(theirs), len(ours)) != (1, 1):  # a fused projection, and its parts
            continue
        if len(theirs) != len(ours):  # a shell around a module of the same parameters, on one side only
            ours_of_type = {calls["paddle"][label].type: label for label in ours}
            alike = [(label, ours_of_type.get(calls["torch"][label].type)) for label in theirs]
            found |= {label: port for label, port in alike if port and port not in found.values()}
        else:
            found |= dict(zip(theirs, ours, strict=True))
    return found


def _by_name(calls: Mapping[str, Mapping[str, _Call]], places: Places, ported: Mapping[str, str]) -> dict[str, str]:
    """Calls without parameters that have the same name below a paired call, and take and give the same shapes."""
    found: dict[str, str] = {}
    for label, call in calls["torch"].items():
        if call.parameters or label in ported:
            continue
        around = next((above for above in _above(label, places) if above in ported), ROOT_MODULE)
        theirs, ours = around.partition("#")[0], ported[around].partition("#")[0]
        if around == ROOT_MODULE:
            port = label
        elif call.module.startswith(f"{theirs}."):
            port = ours + call.module.removeprefix(theirs) + call.again
        else:
            continue
        there = calls["paddle"].get(port)
        if there and not there.parameters and there.signature == call.signature:
            found[label] = port
    taken = set(ported.values())
    return {label: port for label, port in found.items() if port not in taken}


def _above(label: str, places: Places) -> Iterator[str]:
    while label := places[label]["parent"]:
        yield label


def _make_consistent(ported: dict[str, str], places: Mapping[str, Places], chosen: Collection[str]) -> None:
    """Take out pairs, the outermost first, that do not stand in paired calls; not those that a user has chosen."""
    while True:
        labels = {port: label for label, port in ported.items()}
        for label in (call for call in places["torch"] if call in ported and call not in chosen):
            theirs = next((above for above in _above(label, places["torch"]) if above in ported), "")
            ours = next((above for above in _above(ported[label], places["paddle"]) if above in labels), "")
            if theirs != labels.get(ours, ""):
                del ported[label]
                break
        else:
            return


def _dissolved(
    ported: Mapping[str, str], places: Mapping[str, Places], uncalled: Collection[str]
) -> tuple[dict[str, dict[str, Mapping[str, Any]]], dict[str, dict[str, list[str]]]]:
    """By side the places of the paired calls, and which calls' code counts as whose."""
    labels = {
        "torch": {label: label for label in (*ported, *uncalled)},
        "paddle": {port: label for label, port in ported.items()},
    }
    kept: dict[str, dict[str, Mapping[str, Any]]] = {"torch": {}, "paddle": {}}
    inside: dict[str, dict[str, list[str]]] = {"torch": {}, "paddle": {}}
    for side, calls in places.items():
        for own, place in calls.items():
            around = next((labels[side][above] for above in _above(own, calls) if above in labels[side]), "")
            label = labels[side].get(own)
            inside[side].setdefault(label or around, []).append(own)
            if label:
                kept[side][label] = {**place, "parent": around}
    return kept, inside
