"""Where a training pass leaves other numbers in a buffer: the module that holds it, and how it is set on both sides."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from align.locate.divergence import Divergence, Where

UPDATE = "update/"  # before the rows of `forward` that say what a training pass adds to a buffer


def buffer_divergences(
    step: str, bad: Collection[str], answers: Mapping[str, Mapping[str, Any]]
) -> Iterator[Divergence]:
    """One for each module of whose buffers rows are bad. `answers` are both sides', of a replay in training mode."""
    names = {side: {ref: own for own, ref in answer["parameters"].items()} for side, answer in answers.items()}
    held: dict[str, list[str]] = {}
    for row in bad:
        name = row.removeprefix(UPDATE)
        if row.startswith(UPDATE) and name in names["torch"] and name in names["paddle"]:
            held.setdefault(name.rpartition(".")[0], []).append(name)
    for module, buffers in held.items():
        own = {side: names[side][buffers[0]].rpartition(".")[0] for side in answers}
        lasts = ", ".join(name.rpartition(".")[2] for name in buffers)
        what = f"what a training pass adds to its {lasts}{_kept(answers, own)}"
        places = {side: _where(answers[side]["places"].get(own[side])) for side in answers}
        yield Divergence(step, own["paddle"] or module, what, float("inf"), places["paddle"], places["torch"])


def _kept(answers: Mapping[str, Mapping[str, Any]], own: Mapping[str, str]) -> str:
    """How much of the old value each side keeps, where that differs: Paddle's momentum is that, PyTorch's the rest."""
    told = {side: answers[side]["settings"].get(own[side], {}).get("attributes", {}) for side in answers}
    theirs, ours = told["torch"].get("momentum"), told["paddle"].get("_momentum")
    if not isinstance(theirs, float) or not isinstance(ours, float) or abs(1 - theirs - ours) < 2.0**-20:
        return ""
    return f": the port keeps {ours:.6g} of the old value, the reference {1 - theirs:.6g}"


def _where(place: Mapping[str, Any] | None) -> Where | None:
    return Where(**place["call"], built=place["built"]) if place and place["call"] else None
