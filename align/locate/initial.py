"""The lines that gave a port's parameters first values of another distribution; nothing is replayed or traced."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from align.locate.divergence import Divergence, Where

STEP = "init"


def initial_divergences(rows: Iterable[str], port: Mapping[str, Any], reference: Mapping[str, Any]) -> list[Divergence]:
    """One for each line, in the order of the wrong rows; both sides are `align.record.origins` by reference names."""
    groups: dict[object, list[str]] = {}
    for row in rows:
        name = row.rpartition("/")[0]
        if port.get(name, {}).get("line"):
            groups.setdefault(_key(port[name]), []).append(row)
    return [_divergence(found, port, reference) for found in groups.values()]


def _key(origin: Mapping[str, Any]) -> object:
    return tuple(place and (place["file"], place["line"]) for place in (origin["line"], origin["decided"]))


def _divergence(rows: Collection[str], port: Mapping[str, Any], reference: Mapping[str, Any]) -> Divergence:
    first, *others = rows
    name = first.rpartition("/")[0]
    more = f" and {len(others)} more" if others else ""
    what = f"{first}{more}: the line that initialises {name}"
    return Divergence(STEP, "", what, float("inf"), _where(port[name]), _where(reference.get(name, {})))


def _where(origin: Mapping[str, Any]) -> Where | None:
    """The line that wrote the values; `built` made what decided about them."""
    place, decided = origin.get("line"), origin.get("decided")
    return place and Where(place["file"], place["line"], place["end_line"], place["code"], decided)
