"""What a training loop does, act by act: values alone do not show that a gradient was never cleared.

Forward passes of the model, backward passes, updates, cleared gradients, changes of mode, steps of the schedule and of
the moving average, in order, each with the user's statement that did it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

from align.record.fingerprint import Fingerprint, of_array
from align.record.observer import leaves
from align.record.source import Place, user_place
from align.sides import Side


@dataclass(frozen=True)
class Act:
    """`kind`: forward, backward, step, clear, mode, schedule or average.

    `detail`: of a forward pass and of a mode whether it is training; of cleared gradients what is left of them. `print`
    is of the first input of a forward pass, of the loss of a backward pass, and of the learning rate of an update;
    `row` its name among the emissions.
    """

    kind: str
    detail: str = ""
    print: Fingerprint | None = None
    row: str = ""
    place: Place | None = None


@contextmanager
def watched(
    side: Side,
    model: Any,
    objects: Iterable[tuple[Any, str, str]],
    acts: list[Act],
    emitted: Callable[[str, Any], None],
) -> Iterator[None]:
    """In this block every act is noted. `objects` are (object, method, kind) of what the packages made themselves.

    `emitted` is told the loss of each backward pass and the rate of each update, under the act's `row`.
    """
    running: list[str] = []

    def noted(kind: str, owner: Any, arguments: tuple[Any, ...], after: bool) -> None:
        if running or not _concerns(kind, model, owner, arguments):
            return
        if (kind in ("clear", "mode")) is not after:  # of these the effect is told
            return
        row = f"{kind}/{sum(act.kind == kind for act in acts)}"
        detail, found = "", None
        if kind == "mode":
            detail = "training" if model.training else "evaluation"
        elif kind == "clear":
            detail = "none" if all(gradient is None for gradient in side.gradients(model).values()) else "zero"
        elif kind == "backward":
            loss = next((tensor for _, tensor in leaves(side, (owner, *arguments))), None)
            if loss is not None:
                emitted(row, loss)
                found = of_array(np.asarray(side.to_numpy(loss)))
        elif kind == "step":
            rate = side.rate(owner)
            emitted(row, rate)
            found = of_array(np.asarray(rate))
        acts.append(Act(kind, detail, found, row, user_place()))

    def forward(name: str, inputs: Any) -> None:
        if name == "":
            first = next((tensor for _, tensor in leaves(side, inputs)), None)
            found = None if first is None else of_array(side.to_numpy(first))
            mode = "training" if model.training else "evaluation"
            acts.append(Act("forward", mode, found, f"forward/{len(acts)}", user_place()))

    with ExitStack() as stack:
        for owner, method, kind in side.loop_points():
            stack.enter_context(_replaced(owner, method, _telling(getattr(owner, method), kind, noted, running)))
        for thing, method, kind in objects:
            bound = _telling(getattr(thing, method), kind, noted, running)
            vars(thing)[method] = bound
            stack.callback(vars(thing).pop, method, None)
        stack.enter_context(side.hooked(model, forward, lambda *_: None))
        yield


def _concerns(kind: str, model: Any, owner: Any, arguments: tuple[Any, ...]) -> bool:
    """Modes are told of the model alone, by what is written into its `training`."""
    return kind != "mode" or (owner is model and bool(arguments) and arguments[0] == "training")


def _telling(function: Any, kind: str, noted: Callable[..., None], running: list[str]) -> Any:
    @wraps(function)
    def told(*arguments: Any, **keywords: Any) -> Any:
        owner, others = (arguments[0], arguments[1:]) if arguments else (None, ())
        noted(kind, owner, others, after=False)
        inside = kind != "mode"  # an act inside another is a part of it
        if inside:
            running.append(kind)
        try:
            return function(*arguments, **keywords)
        finally:
            if inside:
                running.pop()
            noted(kind, owner, others, after=True)

    return told


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
