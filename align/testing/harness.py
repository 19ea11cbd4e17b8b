"""Pairs run from a test: cases made of arguments, on processes that stay for the whole session."""

import fcntl
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from align import cases, mapping
from align.case import Case, Input
from align.cases import inputs as input_specs
from align.cases import pair as pairs
from align.cases import paths
from align.compare import waivers as exceptions
from align.compare.verdict import Verdict
from align.errors import UsageError
from align.gate import reported
from align.pipeline import Options
from align.record.in_process import Sides, in_process
from align.record.manifest import write_json
from align.report import console
from align.report import json as json_report
from align.running import Running


class Harness:
    """Both sides' processes and what they are asked for; `end` ends them."""

    def __init__(self, pythons: Mapping[str, str | None], device: str) -> None:
        self._pythons, self._device = dict(pythons), device
        self._running = Running()

    def end(self) -> None:
        self._running.end()

    def run(
        self,
        out: Path,
        reference: Any = None,
        port: Any = None,
        inputs: str | Mapping[str, Any] | Sequence[Any] = (),
        *,
        case: str | Case | None = None,
        steps: Sequence[str] | None = None,
        dtype: str = "float32",
        seed: int | None = None,
        mapping: str | Path | Mapping[str, str] | None = None,
        waivers: str | Path | None = None,
        deviations: str | Path | None = None,
        one_process: bool | None = None,
    ) -> tuple[Verdict, str]:
        """The verdict of one pair, and what the console would print of it. Reports go to the folder `out`.

        reference, port: import paths or files as for `align check`, functions or classes, or models themselves; a model
            is copied and its weights are replaced in the copy.
        inputs: `--input` specifications, arrays, or either by the name of the argument; one alone may stand by itself.
        case: instead of these, a case by name, as `file.toml:name`, or a `Case`.
        mapping: a file as for `--map`, or the port's parameter names by the reference's.
        one_process: True runs both frameworks in this process, which models themselves need and choose by themselves.

        Raises AlignError if nothing can be compared.
        """
        out.mkdir(parents=True, exist_ok=True)
        shared = one_process or (one_process is None and not all(map(_separable, (reference, port))))
        with in_process(shared) as here:
            todo = _case(case, reference, port, inputs, out, here)
            if steps is not None:
                todo = replace(todo, steps=_steps(todo, steps))
            if mapping is not None:
                todo = replace(todo, mapping=_mapping(mapping))
            todo = replace(todo, seed=todo.seed if seed is None else seed)
            options = Options(
                todo,
                out,
                todo.steps,
                dtype=dtype,
                devices=dict.fromkeys(self._pythons, self._device),
                pythons=self._pythons,
                roots=cases.files.roots(case) if isinstance(case, str) else (),
            )
            processes = here.of(options) if here else self._running.of(options)
            rules = exceptions.read(_path(waivers), _path(deviations))
            result = reported(options, rules, keep="summary", logs=False, processes=processes)
        return result, _text(result, out)

    def rows(self, out: Path, run: str, **arguments: Any) -> tuple[list[dict[str, Any]], str, str]:
        """The rows of a pair, its verdict, and its text; run by the first of several processes that share a `run`."""
        with _one_at_a_time(out):
            done = out / "collected.json"
            if not (run and done.is_file() and json.loads(done.read_text())["run"] == run):
                _, text = self.run(out, **arguments)
                write_json(done, {"run": run, "text": text})
            told, rows = json_report.read(out)
            return rows, told["verdict"], json.loads(done.read_text())["text"]


def _separable(builder: Any) -> bool:
    """Whether a process of its own can build it: a path, or a function or class, not a model."""
    return builder is None or isinstance(builder, str) or paths.is_named(builder)


def _case(case: str | Case | None, reference: Any, port: Any, inputs: Any, out: Path, here: Sides | None) -> Case:
    if case is not None:
        if reference is not None or port is not None or inputs:
            raise UsageError("assert_aligned: give a case, or a reference, a port and inputs, not both")
        return cases.files.completed(case, Path()) if isinstance(case, Case) else cases.find(case)
    if reference is None or port is None:
        raise UsageError("assert_aligned: give a reference, a port and inputs, or a case")
    path_of = here.path_of if here else paths.path_of
    name = reference if isinstance(reference, str) else getattr(reference, "__name__", type(reference).__name__)
    return pairs.pair(path_of(reference), path_of(port), _inputs(inputs, out), pairs.name_of(name))


def _inputs(given: Any, out: Path) -> tuple[Input, ...]:
    """Specifications read, arrays stored beside the reports."""
    if isinstance(given, (str, np.ndarray, Input)):
        given = [given]
    named = given.items() if isinstance(given, Mapping) else enumerate(given)
    found: list[Input] = []
    for key, value in named:
        name = key if isinstance(key, str) else ""
        if isinstance(value, Input):
            found.append(value)
        elif isinstance(value, str):
            found += input_specs.read([f"{name}={value}" if name else value], first=len(found))
        else:
            path = out / f"input-{len(found)}.npy"
            np.save(path, np.asarray(value))
            found += input_specs.read([f"{name or len(found)}=@{path}"])
    if not found:
        raise UsageError(f"assert_aligned: give every input of the model: an array, or {input_specs.FORM}")
    return tuple(found)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _mapping(given: str | Path | Mapping[str, str]) -> mapping.Mappings:
    return {"parameters": dict(given)} if isinstance(given, Mapping) else mapping.read(Path(given))


def _steps(case: Case, steps: Sequence[str]) -> tuple[str, ...]:
    if strange := [step for step in steps if step not in case.steps]:
        raise UsageError(f"case {case.name}: has no step {strange[0]!r}; it has {', '.join(case.steps)}")
    return tuple(step for step in case.steps if step in steps)


def _text(result: Verdict, out: Path) -> str:
    page = io.StringIO()
    console.print_verdict(result, str(out), console=Console(file=page, force_terminal=False, no_color=True))
    blamed = f", first in step {result.blamed_step}" if result.blamed_step else ""
    lines = (line.rstrip() for line in page.getvalue().splitlines())
    return "\n".join([f"{result.case}: {result.verdict}{blamed}", *lines])


@contextmanager
def _one_at_a_time(out: Path) -> Iterator[None]:
    """Wait for other processes of the same test run that collect the same pair."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".collecting").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
