"""One module a step. Each has `TWIN` (is it also judged in float64?) and `record(context)`."""

import importlib
from collections.abc import Callable, Collection
from typing import Any, Protocol

from align.case import Case
from align.record.context import Context
from align.record.subject import Subject

# The steps that are compared otherwise than by their float64 twin: bytes, names and counts are exact, and of what each
# side draws for itself the distribution is compared.
EXACT = ("weights", "metric")
STATISTICAL = ("init",)
WITHOUT_TWIN = EXACT + STATISTICAL

# The steps whose rounding the reference's perturbed runs measure; of `data` only the normalisation rounds.
NOISY = ("forward", "loss", "bp_align", "optim", "train_align")


# The steps that run a model which can be replayed module by module: they have `subject(context)`.
REPLAYABLE = ("forward", "bp_align", "train_align")

# The steps without such a model: where they differ is found by what their source lines compute.
LINED = ("data", "weights", "metric", "loss", "optim")
# What these emit they gather from what the port answers (an order, a list of files, the losses of a loop).
GATHERING = ("data", "train_align")


def after_update(step: str, row: str) -> bool:
    """Whether a row of `bp_align` shows what the package's `update` did: the parameters, and what they lead to."""
    kind, _, iteration = row.partition("/")
    return step == "bp_align" and (kind in ("param", "grad_norm") or (kind == "loss" and iteration != "0"))


def chain(step: str, row: str) -> str | None:
    """What rows of `data` share that are stages of one image, draw or batch, each made from the one before."""
    return row.rpartition("/")[0] if step == "data" else None


class Step(Protocol):
    def record(self, context: Context) -> None: ...
    def subject(self, context: Context) -> Subject: ...


def load(name: str) -> Step:
    return importlib.import_module(f"align.steps.{name}")


def early(step: str) -> Callable[[str], bool] | None:
    """Whether a row belongs to what `record_early` of a long step records in a fraction of the time; None: it has none.

    What is red there is red in the whole step, which records these rows as well.
    """
    return getattr(load(step), "is_early", None)


def narrowed(step: str, rows: Collection[str] | None, case: Case) -> list[str] | None:
    """What of a step must run for these rows to show why they are wrong, as its `traced` takes it; None: all of it."""
    narrow = getattr(load(step), "narrowed", None)
    return narrow(rows, case) if narrow and rows else None


def replays(step: str, alone: bool) -> tuple[str, ...]:
    """What of a step can be replayed, by the names that `subject` takes: `forward`, and `forward:training`."""
    parts = {"forward": (step, f"{step}:training"), "bp_align": (step,)}
    if alone:
        parts = {"forward": (*parts["forward"], f"{step}:far"), "bp_align": (f"{step}:evaluation", step)}
    return parts.get(step, (step,))


def backward_parts(step: str, bad: Collection[str]) -> tuple[str, ...]:
    """What of a step without a model is to be replayed backwards, given its wrong rows: its values do not show why."""
    found = getattr(load(step), "backward_parts", None)
    return tuple(f"{step}:{part}" for part in found(bad)) if found else ()


def subject(replay: str, context: Context) -> Subject:
    """The model and inputs of a step, or of the part of it that is named after a colon."""
    step, _, part = replay.partition(":")
    module: Any = load(step)
    if not part:
        return module.subject(context)
    own = getattr(module, f"{part}_subject", None)
    return own(context) if own else module.subject(context, part)
