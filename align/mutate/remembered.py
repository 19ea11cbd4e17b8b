"""The reference's process as mutants see it: what it answered one, files included, is read again for the next."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from align.record.manifest import remove, start, write_json
from align.record.process import SideProcess

ANSWER = "answer.json"
KEPT = ("replay", "trace", "lines", "origins")  # they depend on nothing but the reference, its plan and their arguments


def _linked(path: Path, target: Path) -> None:
    """The file under a second name; copied where that lies on another disk."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


class Remembered(SideProcess):
    """Answers from `folder` where it can; else from a process, which `launch` starts when it is first needed."""

    def __init__(self, folder: Path, launch: Callable[[], SideProcess]) -> None:
        self.name = "torch"
        self._folder, self._launch = folder, launch
        self._side: SideProcess | None = None
        self._opened: dict[str, Mapping[str, Any]] = {}

    def kill(self) -> None:
        """End the process, if one was started."""
        if self._side:
            self._side.kill()
            self._side = None

    def request(
        self, operation: str, progress: Callable[[int, int], None] | None = None, **arguments: Any
    ) -> Mapping[str, Any]:
        """Like `SideProcess.request`; `open` waits until somebody asks what is not known yet."""
        if operation == "open":
            self._opened[arguments["run"]] = arguments
            return {}
        if operation not in KEPT:
            return self._running().request(operation, progress, **arguments)
        target = Path(arguments.pop("folder", self._folder))
        kept = self._folder / hashlib.sha256(json.dumps([operation, arguments]).encode()).hexdigest()[:16]
        if not kept.is_dir():
            self._answer(kept, operation, arguments)
        for path in kept.iterdir():
            if path.name != ANSWER:
                _linked(path, target / path.name)
        answer: Mapping[str, Any] = json.loads((kept / ANSWER).read_text())
        return answer

    def _answer(self, kept: Path, operation: str, arguments: Mapping[str, Any]) -> None:
        made = start(self._folder, kept.name)
        process = self._running()
        process.request("open", **self._opened[arguments["run"]])
        files: dict[str, Any] = {} if operation == "origins" else {"folder": str(made)}
        write_json(made / ANSWER, process.request(operation, **files, **arguments))
        with suppress(OSError):  # another worker was quicker
            made.rename(kept)
        remove(made)

    def _running(self) -> SideProcess:
        if self._side is None:
            self._side = self._launch()
        return self._side
