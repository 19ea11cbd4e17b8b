"""What a row that was judged by 64 numbers says about its tensor."""

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from align.compare.rows import Row
from align.golden.thinning import BYTES, CHOSEN, SAMPLES, places, stretches, way_of
from align.record.store import Entry

# The wording of `align.compare.judge`: the index is one of the thinned tensor.
GREATEST = re.compile(r"(\d+) of (\d+) elements differ, most at \((\d+),\): (.*)", re.DOTALL)


def in_full(row: Row, entries: Mapping[str, Entry]) -> Row:
    """The row with places of the whole tensor in place of those of the thinned one."""
    entry = entries.get(row.name)
    way = way_of(entry) if entry else None
    if entry is None or way in (None, CHOSEN) or row.difference is None:
        return row
    found, index = row.difference, row.difference.index
    at = index[0] if index else SAMPLES
    difference = replace(found, index=_element(entry, at) if at < SAMPLES else None)
    match = GREATEST.search(row.reason)
    reason = row.reason[: match.start()] + _told(entry, str(way), *match.groups()) if match else row.reason
    return replace(row, difference=difference, reason=reason)


def _told(entry: Entry, way: str, differing: str, held: str, index: str, values: str) -> str:
    size, at = int(np.prod(entry.shape)), int(index)
    if at < SAMPLES:
        place = _element(entry, at)
        return f"of {held} numbers that stand for {size} elements {differing} differ, most at {place}: {values}"
    if way == BYTES:
        return f"the bytes of its {size} elements have another hash; the {SAMPLES} that are on file are equal"
    first = stretches(size)[at - SAMPLES]
    last = [*stretches(size), size][at - SAMPLES + 1] - 1
    return (
        f"of {held} numbers that stand for {size} elements {differing} differ, most a sum over the elements from "
        f"{_place(entry, first)} to {_place(entry, last)}"
    )


def _element(entry: Entry, sample: int) -> tuple[int, ...]:
    return _place(entry, places(int(np.prod(entry.shape)), SAMPLES)[sample])


def _place(entry: Entry, flat: int) -> tuple[int, ...]:
    return tuple(int(at) for at in np.unravel_index(flat, entry.shape))
