"""The line that made what a wrong module was set to: often far from the call that gave it, a list of rates, say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from align.locate.divergence import Divergence
from align.locate.lines import Search
from align.record.line_trace import LineTrace
from align.steps.construction import row

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by side and path, see `align.record.settings`


def at_its_making(
    found: Sequence[Divergence], settings: Settings, traces: Callable[[], Mapping[str, LineTrace]]
) -> list[Divergence]:
    """The divergences, those of modules with another number in an attribute at the line that made that number.

    `traces` makes the line traces of both sides' construction, and is asked only if there is such a module.
    """
    unlike = [_unlike(divergence, settings) for divergence in found]
    if not any(unlike):
        return list(found)
    search = Search(*(traces()[side] for side in ("paddle", "torch")))
    return [_made(divergence, rows, search) for divergence, rows in zip(found, unlike, strict=True)]


def _unlike(divergence: Divergence, settings: Settings) -> list[str]:
    """The rows of the attributes in which the module of a divergence is set otherwise than its namesake.

    As float32, which is how constants take part in the float64 run.
    """
    module = divergence.module.partition("#")[0]
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
