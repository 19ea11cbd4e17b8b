"""Which values of one line trace are values of the other, by fingerprints. Neither names nor structure are used."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from align.locate.match import LIMIT, NEAR
from align.record.fingerprint import Fingerprint
from align.record.line_trace import Event, LineTrace

# A ratio of small numbers (a count, an accuracy, 0.5) is likely to be found anywhere: 5040 is divisible by 1 to 10.
SMALL, DIVISIBLE = 1000.0, 5040
BITS = 20  # of information, up to which integers are plain
# What is counted of an array is right whatever it holds.
COUNTS = ("len", "shape", "ndim", "size", "numel", "range", "enumerate")


class Prints:
    """The fingerprints of one trace's numbers, to be looked up by value."""

    def __init__(self, trace: LineTrace) -> None:
        rows = [event.print for event in trace.events if event.print is not None]
        rows += [emission.print for emission in trace.emissions if emission.print is not None]
        self._prints = sorted(set(rows), key=lambda p: (p.size, p.rms))
        self._keys = [(p.size, p.rms) for p in self._prints]

    def __contains__(self, found: Fingerprint) -> bool:
        candidates = list(self._near(found))
        return any(same(found, other) for other in candidates) or (
            any(reordered(found, other) for other in candidates)
            and not any(found.shape == other.shape and _same_elements(found, other) for other in candidates)
        )

    def _near(self, found: Fingerprint) -> Iterator[Fingerprint]:
        slack = NEAR * found.rms
        index = bisect_left(self._keys, (found.size, found.rms - slack))
        while index < len(self._prints) and self._keys[index] <= (found.size, found.rms + slack):
            yield self._prints[index]
            index += 1


def same(first: Fingerprint | None, second: Fingerprint | None) -> bool:
    """Equal element by element in C order, whatever the shape: integers exactly, others to `LIMIT` of their rms."""
    if first is None or second is None or first.size != second.size:
        return first is second
    large = first.integer != second.integer and (second if first.integer else first).digest == ""
    if first.digest != second.digest and not large:  # the digest of large integers says nothing of floats
        return False
    return _close((first.rms, *first.projections), (second.rms, *second.projections), second.rms)


def reordered(first: Fingerprint, second: Fingerprint) -> bool:
    """The same elements in another order under another shape: another layout."""
    return first.shape != second.shape and _same_elements(first, second)


def _same_elements(first: Fingerprint, second: Fingerprint) -> bool:
    if first.size != second.size or first.digest or second.digest:
        return False  # large integers, and what is not finite, are recognised in their own order only
    return _close((first.rms, *first.moments), (second.rms, *second.moments), second.rms)


def _close(first: Iterable[float], second: Iterable[float], scale: float) -> bool:
    return all(abs(a - b) <= LIMIT * scale for a, b in zip(first, second, strict=True))


def weak(event: Event) -> bool:
    """Whether a number is so plain that finding it on the other side says little: a count, an accuracy, a mask."""
    found = event.print
    if found is None:
        return False
    if found.integer:
        _, _, greatest, least = found.moments
        span = abs(greatest) if found.size == 1 else greatest - least
        return found.size * math.log2(span + 2) < BITS
    ratio = found.rms * DIVISIBLE
    return found.size == 1 and found.rms < SMALL and abs(ratio - round(ratio)) < NEAR * DIVISIBLE


def matched(ours: LineTrace, theirs: Prints) -> list[bool]:
    """By event: whether its value is one of the other side's.

    Truth values and texts always are: they are judged by what they do to numbers. So is a container whose members are,
    an object that holds no numbers if what it was made from is, and a plain number only if that is too.
    """
    found: list[bool] = []
    for event in ours.events:
        upstream = all(found[number] for number in event.inputs) or _about(ours, event)
        if event.kind == "number" and event.print is not None:
            node = ours.nodes[event.node]
            counted = node.text.rpartition(".")[2] in COUNTS
            found.append(event.print in theirs and (counted or upstream or not event.inputs or not weak(event)))
        elif event.kind == "container":
            found.append(all(found[member] for _, member in event.members))
        else:
            found.append(event.kind != "opaque" or upstream)
    return found


def _about(trace: LineTrace, event: Event) -> bool:
    """Whether this says something about an array (type, device, ...) that does not depend on its values."""
    told = event.kind in ("opaque", "text", "flag") and trace.nodes[event.node].op == "Attribute"
    return told and all(trace.events[number].kind == "number" for number in event.inputs)
