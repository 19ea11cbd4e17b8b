"""Who gave a model's parameters their first values: the user's line that wrote each, and the one that said how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from align.record.places import built
from align.record.source import Place
from align.sides import Side


@dataclass
class Writes:
    """Of parameters, by identity: where each was last written; where the object was made that decided the values."""

    written: dict[int, Place | None]
    decided: dict[int, Place | None]
    kept: list[Any]  # what is told apart by identity must not be freed meanwhile


def origins(side: Side, builder: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By a parameter's own name: `line`, where it was written or its module constructed, and `decided`, or None."""
    with side.writes() as writes:
        model = side.build(builder, arguments)
    modules = side.modules(model)
    found = {}
    for name, parameter in model.named_parameters():
        owner = modules.get(name.rpartition(".")[0])
        place = writes.written.get(id(parameter)) or (None if owner is None else built(owner))
        decided = writes.decided.get(id(parameter))
        found[name] = {"line": place and place.as_json(), "decided": decided and decided.as_json()}
    return found
