"""Which functions of a package a process enters from now on: what none of them is, cannot have had an effect."""

import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

FORKED = ("os.fork", "os.forkpty", "os.posix_spawn")


class Followed:
    """Names of entered functions, class bodies and files (`<module>`), by module; None if something was not seen.

    So it is once a Python process was begun, or another profiler took the place. There is no end to it: it is for a
    process that is made to be followed.
    """

    def __init__(self) -> None:
        self._codes: set[CodeType] = set()
        self._blind = False
        sys.addaudithook(self._hear)
        threading.setprofile(self._called)
        sys.setprofile(self._called)

    def entered(self, package: str) -> dict[str, list[str]] | None:
        """By module of the package, the qualified names of all that was entered."""
        if self._blind or sys.getprofile() != self._called:
            return None
        files = {file: name for name, file in _files(package)}
        found: dict[str, set[str]] = {name: set() for name in files.values()}
        for code in list(self._codes):
            if code.co_filename in files:
                found[files[code.co_filename]].add(code.co_qualname)
        return {name: sorted(names) for name, names in sorted(found.items())}

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._codes.add(frame.f_code)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORKED:
            self._blind = True
        elif event == "subprocess.Popen":
            self._blind |= "python" in Path(str(arguments[0] or arguments[1][0])).name


def _files(package: str) -> Iterable[tuple[str, str]]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name == package or name.startswith(f"{package}.")):
            yield name, file
