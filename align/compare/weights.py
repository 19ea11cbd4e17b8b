"""How the port's tensors were found to be the reference's, in one line, and what has no counterpart."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.record.naming import parts

# What is told of each way to find a counterpart, the surest first.
WORDS = {"override": "by --map", "name": "by name", "value": "by value", "order": "in order"}


@dataclass(frozen=True)
class Weights:
    """`counts`: how many of the reference's tensors were found how; `unpaired`: by side names without a counterpart."""

    counts: Mapping[str, int]
    unpaired: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        told = [f"{self.counts[how]} {word}" for how, word in WORDS.items() if self.counts.get(how)]
        told += [f"{len(left)} of the {side}'s not paired" for side, left in self.unpaired.items() if left]
        return f"weights: {', '.join(told) or 'none'}"


def weights_of(parameters: Mapping[str, Any]) -> Weights | None:
    """What a port's manifest says of its parameters; None where they were not looked for, but named alike."""
    if "unpaired" not in parameters:
        return None
    how = parameters.get("matched_by", {})
    counts = Counter(word for names, word in how.items() for _ in parts(names))
    unpaired = parameters["unpaired"]
    told = {"reference": tuple(unpaired.get("torch", ())), "port": tuple(unpaired.get("paddle", ()))}
    return Weights({word: counts[word] for word in WORDS if counts[word]}, told)
