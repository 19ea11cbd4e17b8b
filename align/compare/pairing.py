"""Which tensor of the port is judged against which of the reference, where names alone do not say it.

A user's mapping wins, then names. What modules hand on inside a model may lie under other names in a module tree of
another structure: there the order in the recording and the elements' root mean square propose a tensor, and only the
elements, within the row's measured noise, pair it. What nothing confirms stays unmatched.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from align.compare.judge import FACTOR, Sources, Tensors, noise_of
from align.compare.noise import Measured
from align.compare.rows import judge
from align.compare.statistics import compare
from align.errors import UsageError
from align.mapping import Mappings, check, modules_of, port_module
from align.record.naming import parts
from align.record.store import Entry

BOUNDARIES = ("activation/", "activation_grad/")
PARAMETERS = ("evaluation/grad/", "grad/", "param/", "update/")  # what may stand before a parameter's name


@dataclass(frozen=True)
class Paired:
    """The sources with the port's tensors under the names of the reference's, and by row how the two were matched."""

    sources: Sources
    matched_by: Mapping[str, str]


class _Renamed:
    """A side's tensors under other names: `names` are its own by the names to show."""

    def __init__(self, source: Tensors, names: Mapping[str, str]) -> None:
        self._source, self._names = source, names
        shown = {own: name for name, own in names.items()}
        self.entries: dict[str, Entry] = {}
        for name, own in names.items():
            if (entry := source.entries.get(own)) is None:
                continue
            facts = dict(entry.facts or {})
            if "same_as" in facts:
                facts["same_as"] = shown.get(facts["same_as"], facts["same_as"])
            self.entries[name] = replace(entry, name=name, facts=facts or None)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._source[self._names[name]]


def check_mapping(mapping: Mappings, reference: Collection[str], port: Collection[str]) -> None:
    """UsageError for a name that is not in the recordings, which hold tensors of these names."""
    for side, names in (("torch", reference), ("paddle", port)):
        check(mapping, "modules", side, {module for name in names if (module := _module(name)) is not None})
    check(mapping, "parameters", "torch", {_parameter(name) for name in reference})
    # A port that was recorded with the mapping has the reference's names already.
    ours = {_parameter(name) for name in port}
    later = {theirs: own for theirs, own in mapping.get("parameters", {}).items() if theirs not in ours}
    check({"parameters": later}, "parameters", "paddle", ours)


def _module(name: str) -> str | None:
    """The dotted name of the module that an inner row belongs to."""
    kind, _, rest = name.partition("/")
    return rest.partition("/")[0].partition("#")[0] if kind in ("activation", "activation_grad") else None


def paired(sources: Sources, mapping: Mappings) -> Paired:
    """Match the tensors of one step."""
    if sources.reference is None or sources.port is None:
        return Paired(sources, {})
    theirs, ours = sources.reference.entries, sources.port.entries
    chosen = {name: own for name, own in _chosen(theirs, ours, mapping) if own in ours}
    taken = set(chosen.values())
    if len(taken) < len(chosen):
        twice = next(own for own, count in Counter(chosen.values()).items() if count > 1)
        raise UsageError(f"--map: {twice} of the port would be matched with two tensors of the reference")
    names = {name: name for name in theirs if name in ours and name not in chosen and name not in taken}
    matched_by = dict.fromkeys(names, "name") | dict.fromkeys(chosen, "override")
    names |= chosen
    unmatched = {name for name, entry in theirs.items() if name not in names and _at_boundary(entry)}
    shown = {*names.values()}
    free = {own for own, entry in ours.items() if own not in shown and _at_boundary(entry)}
    if unmatched and free:  # unlike structures: there a name with another shape is another thing
        by_name = [name for name, how in matched_by.items() if how == "name" and name.startswith(BOUNDARIES)]
        other = {name for name in by_name if theirs[name].shape != ours[name].shape}
        for name in other:
            del names[name], matched_by[name]
        apart = [name for name in theirs if name in unmatched | other], [own for own in ours if own in free | other]
        found = _by_value(sources, *apart)
        names |= {name: own for name, (own, _) in found.items()}
        matched_by |= {name: how for name, (_, how) in found.items()}
        left = [name for name in apart[0] if name not in names]
        for name, own, how in _by_owner(left, mapping):
            if own in apart[1] and own not in names.values() and theirs[name].shape == ours[own].shape:
                names[name], matched_by[name] = own, how
    told = {part: how for name, how in _told(mapping).items() for part in parts(name)}
    matched_by |= {name: told[_parameter(name)] for name in matched_by if _parameter(name) in told}
    shown = {*names.values()}
    if all(name == own for name, own in names.items()) and len(shown) == len(ours):
        return Paired(sources, matched_by)
    # What only the port has keeps its name, unless a row of the reference has that one.
    names |= {own if own not in theirs else f"{own} (port)": own for own in ours if own not in shown}
    twin = sources.port_twin and _Renamed(sources.port_twin, names)
    return Paired(replace(sources, port=_Renamed(sources.port, names), port_twin=twin), matched_by)


def _by_owner(names: Iterable[str], mapping: Mappings) -> Iterator[tuple[str, str, str]]:
    """What no value confirms, of modules whose parameters were paired: (reference's name, port's name, how)."""
    owners = modules_of(mapping)
    for name in names:
        module = _module(name)
        if module in owners:
            kind, _, rest = name.partition("/")
            own, how = owners[module]
            yield name, f"{kind}/{own}{rest.removeprefix(module)}", how


def _told(mapping: Mappings) -> dict[str, str]:
    """How each parameter that a mapping speaks of was found: by its user, unless it says otherwise."""
    return {**dict.fromkeys(mapping.get("parameters", {}), "override"), **mapping.get("matched_by", {})}


def _chosen(theirs: Iterable[str], ours: Collection[str], mapping: Mappings) -> Iterator[tuple[str, str]]:
    """(reference's name, port's name) of every tensor that a mapping speaks of."""
    for name in theirs:
        module, parameter = _module(name), _parameter(name)
        if module is not None:
            kind, _, rest = name.partition("/")
            if (port := port_module(mapping, module)) is not None:
                yield name, f"{kind}/{port}{rest.removeprefix(module)}"
        # A port that was recorded with the mapping has the reference's names already.
        elif name not in ours and parameter in mapping.get("parameters", {}):
            yield name, name.removesuffix(parameter) + mapping["parameters"][parameter]


def _parameter(name: str) -> str:
    """A row's name without what stands before that of a parameter."""
    return next((name.removeprefix(prefix) for prefix in PARAMETERS if name.startswith(prefix)), name)


def _at_boundary(entry: Entry) -> bool:
    """Whether it is a tensor of its own, not a second name of another, that a module hands on."""
    return entry.name.startswith(BOUNDARIES) and "same_as" not in (entry.facts or {})


def _by_value(sources: Sources, unmatched: list[str], free: list[str]) -> dict[str, tuple[str, str]]:
    """(port's name, `order` or `value`) by the reference's name, each confirmed by its elements in float64."""
    truth, twin = sources.reference_twin, sources.port_twin
    if truth is None or twin is None:
        return {}
    assert sources.reference
    measured = noise_of(sources, list(sources.reference.entries))
    proposals = _in_order(unmatched, free, truth.entries, twin.entries)
    sizes = {own: _rms(twin[own]) for own in twin.entries if own.startswith(BOUNDARIES)}
    found: dict[str, tuple[str, str]] = {}
    left = dict.fromkeys(free)
    for name in unmatched:
        if name not in measured:
            continue
        rms = _rms(truth[name])
        limit = measured[name].twin.times(FACTOR).rms
        # No two arrays whose root mean squares differ by more can be so near to each other.
        near = [own for own, size in sizes.items() if abs(size - rms) <= limit and _kind(own) == _kind(name)]
        first = proposals.get(name)
        # What has no counterpart yet comes first; after that, a tensor may have two names on one side.
        for own in sorted(near, key=lambda own: (own != first, own not in left)):
            if _holds(twin[own], truth[name], measured[name]):
                found[name] = own, "order" if own == first else "value"
                left.pop(own, None)
                break
    return found


def _in_order(
    unmatched: list[str], free: list[str], theirs: Mapping[str, Entry], ours: Mapping[str, Entry]
) -> dict[str, str]:
    """The k-th of a kind and shape on one side with the k-th on the other, where there are as many."""
    groups: dict[object, tuple[list[str], list[str]]] = {}
    for index, (names, entries) in enumerate(((unmatched, theirs), (free, ours))):
        for name in names:
            if name in entries:
                key = _kind(name), entries[name].shape
                groups.setdefault(key, ([], []))[index].append(name)
    pairs = [zip(*group, strict=True) for group in groups.values() if len(group[0]) == len(group[1])]
    return {name: own for group in pairs for name, own in group}


def _kind(name: str) -> tuple[str, str]:
    """Values and gradients apart, and of values what goes in from what comes out: (`activation`, `in`)."""
    kind, _, rest = name.partition("/")
    return kind, rest.partition("/")[2].partition("/")[0]


def _holds(port: np.ndarray, reference: np.ndarray, measured: Measured) -> bool:
    if port.shape != reference.shape or port.dtype != reference.dtype:
        return False
    between = compare(port, reference)
    return between.nonfinite_equal and judge(between, measured.twin, measured.twin.times(FACTOR)).holds


def _rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
