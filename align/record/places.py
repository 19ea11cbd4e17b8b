"""Where each module was constructed, and from where each of its calls came."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from align.record.source import Place, user_place

BUILT = "_align_built"


@contextmanager
def noting_constructors(base: type) -> Iterator[None]:
    """While this block runs, every instance of `base` (Module or Layer) remembers who constructed it."""
    original: Any = base.__init__  # type: ignore[misc]

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        # Not through the framework's own __setattr__, which needs what __init__ is about to make.
        self.__dict__[BUILT] = user_place(skip_self=self)
        original(self, *args, **kwargs)

    base.__init__ = init  # type: ignore[misc]
    try:
        yield
    finally:
        base.__init__ = original  # type: ignore[misc]


def built(module: Any) -> Place | None:
    return module.__dict__.get(BUILT)
