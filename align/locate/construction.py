"""The line that made what a wrong module holds: often far from the call that gave it, a list of rates, say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from align.locate.divergence import Divergence
from align.locate.lines import Search
from align.locate.recognise import same
from align.record.calls import ROOT_MODULE
from align.record.fingerprint import from_json
from align.record.line_trace import LineTrace
from align.steps.construction import row
from align.steps.forward import BUILT

Held = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by side and path, see `settings` and `held` of `align.record`


def at_its_making(
    found: Sequence[Divergence], settings: Held, held: Held, traces: Callable[[], Mapping[str, LineTrace]]
) -> list[Divergence]:
    """The divergences, those of modules that hold another number or tensor at the line that made that.

    `traces` makes the line traces of both sides' construction, and is asked only if there is such a module.
    """
    unlike = [_unlike(divergence, settings) + _other_tensors(divergence, held) for divergence in found]
    if not any(unlike):
        return list(found)
    search = Search(*(traces()[side] for side in ("paddle", "torch")))
    return [_made(divergence, rows, search) for divergence, rows in zip(found, unlike, strict=True)]


def wrongly_built(
    step: str, rows: Sequence[str], traces: Callable[[], Mapping[str, LineTrace]], names: Mapping[str, str]
) -> list[Divergence]:
    """The lines of the port's constructors that made the buffers of `built/` rows; `names` are the port's own."""
    buffers = [row.removeprefix(BUILT) for row in rows if row.startswith(BUILT)]
    if not buffers:
        return []
    search = Search(*(traces()[side] for side in ("paddle", "torch")))
    found: dict[object, tuple[Divergence, list[str]]] = {}
    for buffer in buffers:
        own = names.get(buffer, buffer)
        blame = search.blame(own) if own in search.wrong else None
        unplaced = Divergence(step, "", "", float("inf"), None, None)
        made = search.divergence(step, own, blame, 1) if blame else unplaced
        place = made.port and (made.port.file, made.port.line)
        found.setdefault(place, (made, []))[1].append(buffer)
    return [_told(made, buffers, names) for made, buffers in found.values()]


def _told(made: Divergence, buffers: Sequence[str], names: Mapping[str, str]) -> Divergence:
    first, *others = buffers
    more = f" and {len(others)} more" if others else ""
    module = names.get(first, first).rpartition(".")[0] or ROOT_MODULE
    return replace(made, module=module, what=f"{first}{more}, as it is built; loaded weights would hide it")


def _path(divergence: Divergence) -> str:
    module = divergence.module.partition("#")[0]
    return "" if module == ROOT_MODULE else module


def _other_tensors(divergence: Divergence, held: Held) -> list[str]:
    """The rows of the tensors, parameters aside, that the module of a divergence and its namesake hold unlike."""
    module = _path(divergence)
    ours, theirs = (held[side].get(module, {}) for side in ("paddle", "torch"))
    both = [name for name in ours if name in theirs]
    return [row(module, name) for name in both if not same(from_json(ours[name]), from_json(theirs[name]))]


def _unlike(divergence: Divergence, settings: Held) -> list[str]:
    """The rows of the attributes in which the module of a divergence is set otherwise than its namesake.

    As float32, which is how constants take part in the float64 run.
    """
    module = _path(divergence)
    ours, theirs = (settings[side].get(module, {}).get("attributes", {}) for side in ("paddle", "torch"))
    pairs = {name: (value, theirs[name]) for name, value in ours.items() if name in theirs}
    return [
        row(module, name)
        for name, (mine, other) in pairs.items()
        if type(mine) is type(other) is float and np.float32(mine) != np.float32(other)
    ]


def _made(divergence: Divergence, rows: Sequence[str], search: Search) -> Divergence:
    for name in rows:
        blame = search.blame(name) if name in search.wrong else None
        if blame is None:
            continue
        made = search.divergence(divergence.step, name, blame, 1)
        if made.port:
            before = divergence.port.built if divergence.port else None
            port = replace(made.port, built=made.port.built or before)
            return replace(divergence, port=port, reference=made.reference or divergence.reference)
    return divergence
