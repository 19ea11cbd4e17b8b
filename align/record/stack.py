"""The user's frames around an operation, found fast: thousands of operations share a few places."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from align.record.source import Place, is_user_file, place_of
from align.record.trace import Frame

DEEPEST = 8  # user frames kept for one operation


@dataclass(frozen=True)
class Stack:
    """The statement that runs, and the user's frames from there outwards, its own first."""

    place: Place
    frames: tuple[Frame, ...]


Variables = Mapping[str, Any]


class Stacks:
    """Finds the user's frames, each combination of instructions worked out once."""

    def __init__(self) -> None:
        self._is_user: dict[CodeType, bool] = {}
        self._stacks: dict[tuple[tuple[CodeType, int], ...], Stack] = {}

    def at(self, frame: FrameType | None) -> tuple[Stack, Variables]:
        """The stack that `frame` or a caller of it is running, and the variables of the user's innermost frame.

        Without any user frame the file is empty.
        """
        is_user = self._is_user
        found: list[FrameType] = []
        while frame is not None and len(found) < DEEPEST:
            code = frame.f_code
            known = is_user.get(code)
            if known is None:
                known = is_user[code] = is_user_file(code.co_filename)
            if known:
                found.append(frame)
            frame = frame.f_back
        key = tuple([(frame.f_code, frame.f_lasti) for frame in found])
        stack = self._stacks.get(key)
        if stack is None:
            stack = self._stacks[key] = _stack(found)
        return stack, found[0].f_locals if found else {}


def _stack(found: list[FrameType]) -> Stack:
    places = [place_of(frame) for frame in found]
    frames = tuple(
        Frame(place.file, place.line, frame.f_code.co_qualname) for frame, place in zip(found, places, strict=True)
    )
    return Stack(places[0] if places else Place("", 0, 0, ""), frames)
