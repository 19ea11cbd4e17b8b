"""Where each module was constructed, and where each of its calls returned."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from align.record.source import Place, is_user_file, return_at, user_place

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


class Returns:
    """While this block runs: the `return` by which a method of an object ended last."""

    def __enter__(self) -> "Returns":
        self._lines: dict[int, tuple[str, int]] = {}
        self._before = sys.getprofile()
        sys.setprofile(self._told)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _told(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "return" and code.co_argcount and is_user_file(code.co_filename):
            self._lines[id(frame.f_locals.get(code.co_varnames[0]))] = code.co_filename, frame.f_lineno

    def last(self, owner: Any) -> Place | None:
        """None where it had no method in user code, or that ended without a `return`."""
        file, line = self._lines.get(id(owner), ("", 0))
        row = return_at(file, line) if file else None
        return row and Place(file, *row)
