"""Divergences by the line that is wrong: one bug may be in the code that many modules run."""

from collections.abc import Mapping, Sequence
from typing import Any


def by_line(divergences: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Those of a `verdict.json` with the same line of the port stand together, in the order of the first of them."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for number, found in enumerate(divergences):
        place = found["port"]
        built = place and place["built"] and (place["built"]["file"], place["built"]["line"])
        key = (found["step"], place["file"], place["line"], built) if place else number
        groups.setdefault(key, []).append(found)
    return list(groups.values())


def likewise(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """The modules of a group beside the first one's."""
    return [found["module"] for found in group[1:] if found["module"]]
