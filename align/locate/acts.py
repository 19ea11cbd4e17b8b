"""The first act of a training loop that is not the reference's, and the line that did it, or that left it out."""

from collections.abc import Sequence

from align.locate.divergence import Divergence, Where
from align.locate.recognise import same
from align.record.acts import Act
from align.record.line_trace import LineTrace
from align.record.source import Place, Row, loop_header, next_statement

DOES = {
    "forward": "runs the model",
    "backward": "goes backward",
    "step": "updates the parameters",
    "clear": "clears the gradients",
    "mode": "sets the model's mode",
    "schedule": "steps the schedule",
    "average": "updates the moving average",
}


# Acts on a value of the loop's own making, and what that is.
MADE = {"backward": "the loss", "step": "the learning rate"}


def first_difference(port: LineTrace, reference: LineTrace) -> tuple[int, str] | None:
    """(its number, what it is: `extra`, `missing`, `detail` or `value`); None where all acts are the reference's.

    Where the port raised, what it no longer did is no finding.
    """
    ours, theirs = port.acts, reference.acts
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine.kind != other.kind:
            skipped, left_out = _rejoined(ours[number:], theirs[number:]), _rejoined(theirs[number:], ours[number:])
            return number, "missing" if left_out > skipped else "extra"
        if mine.detail != other.detail:
            return number, "detail"
        if not same(mine.print, other.print):
            return number, "value"
    if len(ours) > len(theirs):
        return len(theirs), "extra"
    return (len(ours), "missing") if len(theirs) > len(ours) and not port.raised else None


def _rejoined(longer: Sequence[Act], shorter: Sequence[Act]) -> int:
    """How many acts agree in kind, at most, once some of the first have been skipped."""
    return max((_agreeing(longer[skip:], shorter) for skip in range(1, len(longer))), default=0)


def _agreeing(ours: Sequence[Act], theirs: Sequence[Act]) -> int:
    """How many acts agree in kind before the first that does not."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((n for n, (mine, other) in pairs if mine.kind != other.kind), min(len(ours), len(theirs)))


def acted_otherwise(step: str, port: LineTrace, reference: LineTrace) -> Divergence | None:
    """The line of the first difference; None without one, and where only the values of expressions tell it."""
    found = first_difference(port, reference)
    if found is None:
        return None
    number, what = found
    mine, other = _at(port.acts, number), _at(reference.acts, number)
    if what == "value" and mine and mine.kind in MADE:
        return None  # what made that value is told by the values
    if what == "missing" and other and other.kind == "forward":
        return None  # a loop that ended too early: who ended it is in no act
    here = _place(what, mine, _at(port.acts, number - 1))
    if here is None:
        return None
    there = _place("value" if what == "value" else "extra", other, None)
    return Divergence(step, "", f"the loop {_told(what, mine, other)}", float("inf"), here, there)


def _place(what: str, mine: Act | None, before: Act | None) -> Where | None:
    """The line of the act; of a missing one, where it would stand; of another batch, what is looped over."""
    act = before if what == "missing" else mine
    if act is None or act.place is None:
        return None
    if what == "missing":
        return _row(act.place, next_statement(act.place.file, act.place.end_line))
    return _row(act.place, loop_header(act.place.file, act.place.line)) if what == "value" else _where(act.place)


def _told(what: str, mine: Act | None, other: Act | None) -> str:
    if what == "missing" and other:
        return f"does not do what the reference does here: it {DOES[other.kind]}"
    assert mine
    told = DOES[mine.kind]
    if what == "value":
        return f"{told} on another batch than the reference"
    if what == "detail" and other:
        return f"{told}: {mine.detail}, in the reference {other.detail}"
    return f"{told} where the reference {DOES[other.kind]}" if other else f"{told}, the reference does not"


def _at(acts: Sequence[Act], number: int) -> Act | None:
    return acts[number] if 0 <= number < len(acts) else None


def _where(place: Place) -> Where:
    return Where(place.file, place.line, place.end_line, place.code)


def _row(place: Place, row: Row | None) -> Where:
    return Where(place.file, *row) if row else _where(place)
