"""One module a step. Each has `TWIN` (is it also judged in float64?) and `record(context)`."""

import importlib
from typing import Protocol

from align.case import STEPS
from align.record.context import Context
from align.record.subject import Subject

# `init` and `optim` are named in every report; their modules are still to come.
AVAILABLE = tuple(step for step in STEPS if step not in ("init", "optim"))

# The dtypes in which a step is compared otherwise than by its float64 twin: bytes, names and counts are exact.
EXACT = ("weights", "metric")

# The steps whose rounding the reference's perturbed runs measure; of `data` only the normalisation rounds.
NOISY = ("forward", "loss", "bp_align", "train_align")


# The steps that run a model which can be replayed module by module: they have `subject(context)`.
REPLAYABLE = ("forward", "bp_align")


def after_update(step: str, row: str) -> bool:
    """Whether a row of `bp_align` shows what the package's `update` did: the parameters, and what they lead to."""
    kind, _, iteration = row.partition("/")
    return step == "bp_align" and (kind in ("param", "grad_norm") or (kind == "loss" and iteration != "0"))


class Step(Protocol):
    def record(self, context: Context) -> None: ...
    def subject(self, context: Context) -> Subject: ...


def load(name: str) -> Step:
    return importlib.import_module(f"align.steps.{name}")
