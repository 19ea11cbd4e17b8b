"""The registry: every module of this folder is a family, with `RANK` (simplest first) and `propose(evidence)`.

A family knows a kind of change in general, never a particular bug. It yields nothing for evidence that is not its own.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Protocol

from align.diagnose.cause import Hypothesis
from align.diagnose.evidence import Evidence


class Family(Protocol):
    RANK: int
    __name__: str

    def propose(self, evidence: Evidence) -> Iterable[Hypothesis]: ...


@cache
def families() -> tuple[Family, ...]:
    """All of them, the simplest first, by name where the rank is the same."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(sorted(modules, key=lambda module: module.RANK))
