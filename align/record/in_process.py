"""Both sides in the process that asks, for models that are objects of it: slower to tell apart, but nothing to import.

A side's worker does here what it does in a process of its own, one request at a time. That the port does not call the
reference cannot be checked here.
"""

import importlib
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from align.errors import AlignError, UsageError
from align.pipeline import Options
from align.record.failures import failure
from align.record.worker import Worker

LOCK = threading.Lock()  # numpy's generator, which both sides draw from, is one


class InProcess:
    """A side's worker in this process, with the requests of `align.record.process.SideProcess`."""

    alive = True

    def __init__(self, name: str, device: str, threads: int, tf32: bool) -> None:
        self.name = name
        self._progress: Callable[[int, int], None] | None = None
        module = importlib.import_module(f"align.sides.{name}")
        self._worker = Worker(getattr(module, f"{name.capitalize()}Side")(device, threads, tf32), self._told)

    def _told(self, event: Mapping[str, Any]) -> None:
        if self._progress:
            self._progress(event["done"], event["total"])

    def request(
        self, operation: str, progress: Callable[[int, int], None] | None = None, **arguments: Any
    ) -> Mapping[str, Any]:
        """One operation of the worker. Raises the AlignError that it met."""
        with LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a framework's own, which a test run may turn into errors
            self._progress = progress
            try:
                return getattr(self._worker, operation)(**arguments)
            except AlignError:
                raise
            except (Exception, SystemExit) as error:
                where, told = arguments.get("step"), failure(error)["message"]
                raise UsageError(f"{self.name} side, {where + ': ' if where else ''}{told}") from error

    def kill(self) -> None:
        """There is no process to end; only what float64 runs replace is put back."""
        self._worker.side.set_precision("float32")


class Sides:
    """Both sides in this process, and paths to its objects."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._held: list[str] = []

    def of(self, options: Options) -> Mapping[str, InProcess]:
        for side in options.sides:
            self._stack.enter_context(importlib.import_module(f"align.sides.{side}").kept())
        processes = {
            side: InProcess(side, options.devices[side], options.threads, options.tf32) for side in options.sides
        }
        for process in processes.values():
            self._stack.callback(process.kill)
        return processes

    def path_of(self, builder: Any) -> str:
        """A path that `align.record.builders` finds an object of this process by."""
        if isinstance(builder, str):
            return builder
        name = f"model_{next(NUMBERS)}"
        setattr(Held, name, builder if _is_model(builder) else staticmethod(builder))
        self._stack.callback(delattr, Held, name)
        return f"{__name__}:Held.{name}"


class Held:
    """Objects of this process while they are compared."""


NUMBERS = itertools.count()


def _is_model(builder: Any) -> bool:
    return hasattr(builder, "state_dict") and not isinstance(builder, type)


@contextmanager
def in_process(wanted: bool | None) -> Iterator[Sides | None]:
    """`Sides` of this process, or None; afterwards the frameworks' settings are as they were."""
    with ExitStack() as stack:
        yield Sides(stack) if wanted else None
