"""The reference's perturbed runs, which measure its noise: shared out among the processes that have time for them."""

from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any

from align.record.process import Served

Run = tuple[str, str, int]  # dtype, step, seed
# Seconds of work that must be left for another process to be worth its start, in which it imports PyTorch.
WORTH_A_START = 20.0


class PerturbedRuns:
    """Each is done once, by whoever asks next; which process did it changes no number."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._all = list(runs)
        self._left = list(self._all)
        self._took: dict[tuple[str, str], float] = {}
        self._errors: dict[Run, Mapping[str, Any]] = {}
        self._turn = Lock()

    def took(self, dtype: str, step: str, seconds: float) -> None:
        """Tell how long the recording of a step took: its perturbed runs will take about as long."""
        self._took[dtype, step] = seconds

    @property
    def worth_a_start(self) -> bool:
        with self._turn:
            return sum(map(self._cost, self._left)) > WORTH_A_START

    def work(
        self, process: Served, asked: Mapping[str, Any], go_on: Callable[[], bool], done: Callable[[Run], None]
    ) -> None:
        """Do what is left, the longest first, so that nobody waits for a long one at the end.

        `asked` goes with each request, see `align.record.worker.Worker.errors`.
        """
        while go_on() and (run := self._next()):
            dtype, step, seed = run
            self._errors[run] = process.request("errors", step=step, dtype=dtype, seed=seed, **asked)["errors"]
            done(run)

    def errors(self) -> dict[str, dict[str, dict[str, list[Any]]]]:
        """By step, row and dtype, (rms, maximum) of every run in the order of their seeds."""
        found: dict[str, dict[str, dict[str, list[Any]]]] = {}
        for run in self._all:
            dtype, step, _ = run
            for name, error in self._errors[run].items():
                found.setdefault(step, {}).setdefault(name, {}).setdefault(dtype, []).append(error)
        return found

    def _next(self) -> Run | None:
        with self._turn:
            if not self._left:
                return None
            run = max(self._left, key=self._cost)
            self._left.remove(run)
            return run

    def _cost(self, run: Run) -> float:
        return self._took.get(run[:2], 0.0)
