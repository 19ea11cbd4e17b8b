"""The process of one side: `python -m align.record.worker torch|paddle`.

It reads one JSON request a line from standard input and answers with JSON events on what was standard output; whatever
the frameworks print goes to standard error. It imports one framework and never the other.
"""

import hashlib
import importlib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from align import case as cases
from align import steps
from align.case import package_of
from align.errors import AlignError, EnvironmentFault, UsageError
from align.plan import Plan, open_plan
from align.record import line_step, manifest, memory, replay, table
from align.record.builders import HINT, resolve
from align.record.context import Context
from align.record.copies import FORK, LEAVE, serve_copy
from align.record.failures import Raised, dependent, failure, in_one_line, kernel_missing, log_trace, missing
from align.record.followed import Followed
from align.record.noise import NoiseMeter
from align.record.observer import Sink
from align.record.origins import origins
from align.record.settings import held_prints, settings, treated
from align.record.store import Overwritten, Store, StoreWriter
from align.sides import Side

OTHER = {"torch": "paddle", "paddle": "torch"}


@dataclass
class Run:
    """A recording in the making."""

    case: cases.Case
    plan: Plan
    folder: Path
    reference: Path
    dtype: str
    device: str
    modules: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    twin: bool = False  # of a run in a lower type, which stands where this one cannot be made


class Worker:
    """Serves the requests of one harness: describe models, record steps, write the classic files and logs."""

    def __init__(self, side: Side, send: Callable[[Mapping[str, Any]], None]) -> None:
        self.side, self._send = side, send
        self._runs: dict[str, Run] = {}
        self._followed: Followed | None = None

    def environment(self) -> dict[str, Any]:
        """Versions, devices and switches of this side, as `align doctor` and the manifest show them."""
        return {
            "python": platform.python_version(),
            "prefix": sys.prefix,
            "platform": platform.platform(),
            "versions": {**self.side.versions(), "numpy": importlib.import_module("numpy").__version__},
            "devices": self.side.devices(),
            "switches": [{**asdict(switch), "state": switch.state} for switch in self.side.switches()],
        }

    def follow(self) -> dict[str, Any]:
        """From now on, keep which functions this process enters."""
        self._followed = Followed()
        return {}

    def reached(self, package: str) -> dict[str, Any]:
        """Of a followed process: `modules`, all that it has imported, and `entered`, see `Followed`."""
        assert self._followed
        return {"entered": self._followed.entered(package), "modules": sorted(sys.modules)}

    def preload(self, modules: list[str]) -> dict[str, Any]:
        """Import modules ahead of their use; what cannot be imported is left to whoever needs it."""
        for name in modules:
            with suppress(Exception):
                importlib.import_module(name)
        return {}

    def describe(self, case: Mapping[str, Any], sides: int = 2) -> dict[str, Any]:
        """The reference's tensors: of the model, and of the model that `train_align` trains.

        Raises EnvironmentFault before a model is built that so many sides could not hold at once.
        """
        memory.make_room()
        todo = cases.from_json(case)
        self.side.set_precision("float32")
        size = self.side.size(_resolved(todo.builder(self.side.name)), todo.build) if todo.alone else None
        if size is not None:
            memory.check(todo.reference, size, sides)
        answer = {"specs": self._specs(todo.builder(self.side.name), todo.build), "training_specs": []}
        if todo.training:
            answer["training_specs"] = self._specs(todo.training.reference, todo.training.build)
        return answer

    def table(self, case: Mapping[str, Any], plan: str) -> dict[str, Any]:
        """The side's tensors as `align.plan.parameters` pairs them; `raised` if the port cannot be run for sketches."""
        memory.make_room()
        todo = cases.from_json(case)
        path = todo.builder(self.side.name)
        build = partial(self._build, path, todo.build)
        try:
            return {"rows": table.table(self.side, todo, open_plan(Path(plan)), build)}
        except (AlignError, Raised):
            raise
        except (Exception, SystemExit) as error:
            if self.side.name == "torch":
                called = ", ".join(
                    f"{spec.argument}{'=' * bool(spec.argument)}{spec.shape} {spec.dtype}" for spec in todo.inputs
                )
                raise Raised(
                    f"{path}, called with {called}: {in_one_line(error)}; --input says what it is given"
                ) from error
            log_trace(error)
            self.side.set_precision("float32")
            return {
                "rows": [
                    {**asdict(spec), "print": None, "fed": None, "parts": []} for spec in self.side.specs(build())
                ],
                "raised": in_one_line(error),
            }

    def _specs(self, builder: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [asdict(spec) for spec in self.side.specs(self._build(builder, arguments))]

    def _build(self, builder: str, arguments: Mapping[str, Any]) -> Any:
        found = _resolved(builder)
        try:
            return self.side.build(found, arguments)
        except AlignError:
            raise
        except (Exception, SystemExit) as error:
            hint = f"; {HINT}" if isinstance(error, TypeError) and inspect.isroutine(found) else ""
            raise Raised(f"{builder}: to build it raised {in_one_line(error)}{hint}") from error

    def read_weights(self, package: str, path: str, folder: str) -> dict[str, Any]:
        """Read a user's weight file with the side's package and leave it as a store `weights` in `folder`."""
        arrays = importlib.import_module(f"{package}.weights").read_weights(path)
        with StoreWriter(Path(folder), "weights") as store:
            for name, array in arrays.items():
                store.add(name, array, "parameter")
        return {"count": len(arrays)}

    def open(self, run: str, case: Mapping[str, Any], plan: str, folder: str, reference: str, **settings: Any) -> dict:
        """Begin a recording in `folder`; `reference` is where the reference records in the working dtype."""
        settings["modules"] = tuple(settings["modules"])
        self._runs[run] = Run(cases.from_json(case), open_plan(Path(plan)), Path(folder), Path(reference), **settings)
        return {}

    def step(self, run: str, step: str, early: bool = False) -> dict[str, Any]:
        """Record one step of a run, or only its early part, see `align.steps.early`; how long it took."""
        state, began = self._runs[run], time.perf_counter()
        if not self._written(state, step, early):  # outside of what held the first pass in memory
            self._write(state, step, copy=True, early=early)
        state.seconds[step] = round(time.perf_counter() - began, 3)
        return {"seconds": state.seconds[step]}

    def _written(self, state: Run, step: str, early: bool) -> bool:
        """Record without copies; False if an operation in place was quicker than the writing thread."""
        try:
            self._write(state, step, copy=False, early=early)
        except Overwritten:
            return False
        return True

    def _write(self, state: Run, step: str, copy: bool, early: bool) -> None:
        state.failures.pop(step, None)  # a hook that met Overwritten looks like a port that raised
        with StoreWriter(state.folder, step) as writer:
            try:
                self._record(state, step, state.dtype, writer, copy=copy, early=early)
            except (AlignError, ImportError, SyntaxError, MemoryError):
                raise
            except (Exception, SystemExit) as error:
                # A port that raises where the reference does not is a finding about this step, and the others go on.
                # The reference has no such excuse.
                if self.side.name == "torch":
                    raise
                told = kernel_missing(error, state.dtype)
                if told and not state.twin:  # of the framework's build: no port could do otherwise
                    elsewhere = ", or with --device gpu, where Paddle has more of them" * (state.device == "cpu")
                    told = f"{told}; run with --dtype float32{elsewhere}"
                    raise EnvironmentFault(f"{step} in {state.dtype} on {state.device}: {told}") from error
                log_trace(error)
                state.failures[step] = f"{manifest.NO_KERNEL}{told}" if told else in_one_line(error)
        state.files.update(writer.hashes)

    def errors(self, run: str, step: str, dtype: str, truth: str, seed: int, reference: str) -> dict[str, Any]:
        """By row, (rms, maximum) of how far a step run in `dtype` with everything one ulp off is from `truth`.

        `reference` is where the reference's recording in the working dtype lies now.
        """
        state = replace(self._runs[run], reference=Path(reference))
        meter = NoiseMeter(Store(Path(truth), step))
        self._record(state, step, dtype, meter, perturbation=seed)
        return {"errors": meter.errors}

    def _record(
        self,
        run: Run,
        step: str,
        dtype: str,
        sink: Sink,
        perturbation: int | None = None,
        copy: bool = False,
        early: bool = False,
    ) -> None:
        self.side.set_precision(dtype)
        module: Any = steps.load(step)
        record = module.record_early if early else module.record
        record(self._context(run, dtype, sink, perturbation, copy))

    def _context(
        self,
        run: Run,
        dtype: str,
        sink: Sink,
        perturbation: int | None = None,
        copy: bool = True,
        kind: type[Any] = Context,
    ) -> Any:
        return kind(
            self.side,
            run.case,
            run.plan,
            dtype,
            sink,
            lambda name: Store(run.reference, name),
            lambda done, total: self._send({"event": "progress", "done": done, "total": total}),
            perturbation,
            run.modules,
            copy,
            looking=run.folder == run.reference,
        )

    def replay(
        self,
        run: str,
        step: str,
        folder: str,
        pairs: dict[str, str] | None = None,
        treatments: list[dict[str, Any]] | None = None,
        any_shape: bool = False,
        partial: bool = False,
    ) -> dict[str, Any]:
        """Run a step's model module by module into `folder`: the reference its boundaries, the port on those.

        The answer holds, by call, where it stands in the source and where its module was constructed; by module, how it
        is set; and the reference's name of every tensor of the model by its own. With `treatments`, see
        `align.record.settings`, modules are set otherwise, and the store is `<step>-<side>-treated`.
        """
        state, path = self._runs[run], Path(folder)
        self.side.set_precision(state.dtype)
        name = f"{step}-{self.side.name}" + ("-treated" if treatments else "")
        with StoreWriter(path, name) as writer:
            subject = steps.subject(step, self._context(state, state.dtype, writer))
            modules = self.side.modules(subject.model)
            attached = {treatment["attached"] for treatment in treatments or () if treatment["attached"]}
            gradients = self.side.attached(subject.model, attached) if attached else nullcontext()
            with subject.randomness(), treated(modules, treatments or ()), gradients:
                if self.side.name == "torch":
                    places = replay.record_boundaries(self.side, subject, writer)
                else:
                    reference = Store(path, f"{step}-torch")
                    places = replay.record_forced(
                        self.side, subject, reference, writer, None, pairs, any_shape, partial
                    )
        names = subject.naming.reference
        parameters = {spec.name: names.get(spec.name, spec.name) for spec in self.side.specs(subject.model)}
        kept = held_prints(self.side, modules)
        return {"places": places, "parameters": parameters, "settings": settings(modules), "held": kept}

    def trace(
        self,
        run: str,
        step: str,
        folder: str,
        modules: list[str],
        pairs: dict[str, str] | None = None,
        any_shape: bool = False,
        partial: bool = False,
    ) -> dict[str, Any]:
        """Once more, after `replay`, with every operation of the named module calls traced.

        Leaves the store and trace `<step>-<side>-trace` in the folder. The port runs on the reference's boundaries.
        """
        state, path, name = self._runs[run], Path(folder), f"{step}-{self.side.name}-trace"
        self.side.set_precision(state.dtype)
        with StoreWriter(path, name) as writer:
            subject = steps.subject(step, self._context(state, state.dtype, writer))
            reference = Store(path, f"{step}-torch") if self.side.name == "paddle" else None
            with subject.randomness():
                wanted = set(modules)
                trace = replay.traced(self.side, subject, reference, writer, wanted, pairs, any_shape, partial)
        trace.write(path, name)
        return {}

    def lines(
        self,
        run: str,
        step: str,
        folder: str,
        reference: str,
        part: list[str] | None = None,
        dtype: str | None = None,
    ) -> dict[str, Any]:
        """Run a step once more with its source lines traced; leaves `<step>-<side>-lines.json` in the folder.

        `reference` is where the reference's recording in the working dtype lies now; `part` is what of the step is run,
        see `align.steps.narrowed`; `dtype` is another than the run's.
        """
        module: Any = steps.load(step)
        record = getattr(module, "traced", module.record)
        state = replace(self._runs[run], reference=Path(reference))
        state = replace(state, dtype=dtype or state.dtype)
        self.side.set_precision(state.dtype)
        trace = line_step.traced(
            self.side,
            state.case.package(self.side.name),
            record if part is None else partial(record, part=part),
            lambda: self._context(state, state.dtype, line_step.Deaf(), kind=line_step.LineContext),
            step in steps.GATHERING,
        )
        trace.write(Path(folder) / f"{step}-{self.side.name}-lines.json")
        return {}

    def origins(self, run: str) -> dict[str, Any]:
        """By the reference's name of each parameter of the case's model, who gave it its first values."""
        state = self._runs[run]
        self.side.set_precision("float32")
        names = self._context(state, state.dtype, line_step.Deaf()).reference_names
        found = origins(self.side, resolve(state.case.builder(self.side.name)), state.case.build)
        return {"origins": {names.get(name, name): origin for name, origin in found.items()}}

    def close(self, run: str, noise: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write the manifest; the harness gives the recordings their names when all are whole.

        `noise`: the errors of the reference's perturbed runs by step, row and dtype.
        """
        state = self._runs[run]
        for step, errors in (noise or {}).items():
            path = state.folder / f"{step}{manifest.NOISE}"
            path.write_text(json.dumps(errors))
            state.files[path.name] = blake3(path.read_bytes()).hexdigest()
        made = manifest.Manifest(
            case=state.case.name,
            side=self.side.name,
            device=state.device,
            dtype=state.dtype,
            plan=state.plan.id,
            sources=state.plan.sources,
            steps=state.seconds,
            failures=state.failures,
            environment=self.environment(),
            parameters=state.parameters,
            code=_code({state.case.package(self.side.name), package_of(state.case.builder(self.side.name))} - {*OTHER}),
            files=state.files,
        )
        manifest.seal(state.folder, made)
        memory.give_back()
        return {}

    def headlines(self, recording: str, step: str, path: str, without: Collection[str] = ()) -> dict[str, Any]:
        """Write a step's headline arrays as a reprod_log file, aside and then moved into place."""
        from align.record import classic

        store = Store(Path(recording), step)
        wanted = [name for name, e in store.entries.items() if e.headline and name not in without]
        classic.save({name: store[name] for name in wanted}, Path(path), self.side.name)
        return {}

    def diff_log(self, **request: Any) -> dict[str, Any]:
        """Write a `*_diff.log` through reprod_log's ReprodDiffHelper (paddle side only: the package imports paddle)."""
        from align.record import classic

        return {"passed": classic.diff_log(**request)}


def _resolved(builder: str) -> Any:
    try:
        return resolve(builder)
    except AlignError:
        raise
    except (Exception, SystemExit) as error:
        raise Raised(f"{builder}: to import it raised {in_one_line(error)}") from error


def _code(packages: Collection[str]) -> dict[str, Any]:
    """File and SHA-256 of every module of the side's packages that was really imported."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(name == package or name.startswith(f"{package}.") for package in packages):
            found[name] = {"file": file, "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
    return found


def main(name: str) -> None:
    if not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)  # `-m` puts the working directory first; PYTHONPATH already says in which order to look
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a framework's or a model's print must not break the protocol
    requests = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nor must a model that reads wait for ever

    number = 0

    def send(event: Mapping[str, Any]) -> None:
        channel.write(json.dumps({**event, "number": number}) + "\n")

    worker = None
    for line in requests:
        request = json.loads(line)
        operation, chosen, number = (request.pop(name) for name in ("operation", "side", "number"))
        if operation == LEAVE:
            os._exit(0)  # a copy must not run what the original has registered for its end
        try:
            if worker is None:
                module = importlib.import_module(f"align.sides.{name}")
                worker = Worker(getattr(module, f"{name.capitalize()}Side")(**chosen), send)
            if operation == FORK:
                serve_copy(send, **request)
                continue
            event = {"event": "done", **getattr(worker, operation)(**request)}
        except (Exception, SystemExit) as error:
            if worker is None and not isinstance(error, AlignError):
                error = missing(name, error)
            event = failure(error)
        if OTHER[name] in sys.modules:
            # There is no way back from an import: the process is of no further use.
            event = {**failure(UsageError(dependent(name, OTHER[name]))), "final": True}
        send(event)


if __name__ == "__main__":
    main(sys.argv[1])
