"""Both sides' processes, kept for many runs one after another: each framework is imported once."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from align.case import package_of
from align.pipeline import Options, launch
from align.record.process import SideProcess


class Running:
    """Hands out running processes for options; a context manager that ends them.

    They are started again after one has ended, for other settings, and where a file of a user would come under the name
    of another file that was imported before.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._processes: dict[str, SideProcess] = {}
        self._settings: Any = None
        self._files: dict[tuple[str, str], Path] = {}

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def of(self, options: Options) -> Mapping[str, SideProcess]:
        settings = (options.pythons, options.devices, options.threads, options.tf32, options.roots, options.sides)
        files = _files(options)
        stale = any(self._files.get(name, file) != file for name, file in files.items())
        ended = any(not process.alive for process in self._processes.values())
        if stale or ended or settings != self._settings:
            self.end()
        self._settings = settings
        self._files |= files
        if not self._processes:
            # Their logs outlive the folder of any one case.
            shelf = replace(options, case=replace(options.case, name="processes"))
            self._processes = {side: self._stack.enter_context(launch(side, shelf)) for side in options.sides}
        return self._processes

    def end(self) -> None:
        self._stack.close()
        self._processes, self._files = {}, {}


def _files(options: Options) -> dict[tuple[str, str], Path]:
    """By side and module name, the user's file that is imported under it."""
    paths = {side: options.case.builder(side).partition(":")[0] for side in options.sides}
    return {(side, package_of(path)): Path(path).resolve() for side, path in paths.items() if path.endswith(".py")}
