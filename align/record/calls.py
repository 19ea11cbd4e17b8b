"""Which module calls run at the moment, by label: dotted path, `#k` for the k-th further call, `(model)` for the root.

A call that raises, and whose caller goes on, never tells its end: it is known by its stack frame, which is gone.
"""

import sys
from collections import Counter
from types import FrameType
from typing import Any

from align.record.source import OWN

ROOT_MODULE = "(model)"


class Calls:
    """Labels of the calls that run, the outermost first. `enter` and `leave` are for a module's hooks."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._running: list[tuple[str, FrameType]] = []
        self._given: dict[str, tuple[Any, ...]] = {}  # by the calls that run

    def enter(self, module: str) -> str:
        """A module begins to run; the answer is its label."""
        name = module or ROOT_MODULE
        label = f"{name}#{self._counts[name]}" if self._counts[name] else name
        self._counts[name] += 1
        stack = _frames_outside_this_package()
        while self._running and self._running[-1][1] not in stack:
            self._running.pop()
        self._running.append((label, stack[0]))
        return label

    def leave(self, module: str) -> str:
        """A module is done, and with it those inside that did not get to their end; the answer is its label."""
        label = self._running.pop()[0]
        while label.partition("#")[0] != (module or ROOT_MODULE):
            label = self._running.pop()[0]
        stack = _frames_outside_this_package()
        while self._running and self._running[-1][1] not in stack:
            self._running.pop()
        return label

    def begin(self, module: str, given: Any) -> None:
        """`enter` as a hook that keeps what the call was given for as long as it runs."""
        label = self.enter(module)
        self._given[label] = given if isinstance(given, tuple) else (given,)

    def end(self, module: str, _: Any) -> None:
        """`leave` as a hook."""
        self._given.pop(self.leave(module), None)

    @property
    def given(self) -> tuple[Any, ...]:
        """What the innermost call was given, as far as it began by `begin`."""
        return self._given.get(self.innermost, ())

    @property
    def innermost(self) -> str:
        """The call that runs now, empty outside all."""
        return self._running[-1][0] if self._running else ""

    @property
    def parent(self) -> str:
        """The call that made the innermost one."""
        return self._running[-2][0] if len(self._running) > 1 else ""


def _frames_outside_this_package() -> list[FrameType]:
    """The frames of the caller, the innermost first: that is the framework's, which calls a module's hooks."""
    frame: FrameType | None = sys._getframe(1)
    frames = []
    while frame:
        if not frame.f_code.co_filename.startswith(OWN):
            frames.append(frame)
        frame = frame.f_back
    return frames
