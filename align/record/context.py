"""What a step sees while it records: its side, the case, the plan, the reference's recording, where to put tensors."""

import importlib
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from align import mapping
from align.case import Case
from align.errors import UsageError
from align.plan import Plan
from align.record import memory
from align.record.arrangement import Slices
from align.record.builders import resolve
from align.record.naming import Naming, parts
from align.record.noise import one_ulp_off
from align.record.observer import Sink, observe
from align.record.randomness import Tape
from align.record.store import Store
from align.sides import Side


class Context:
    """One step of one run. Inputs come from `plan` or `reference`, results go through `emit`; nothing else leaks."""

    def __init__(
        self,
        side: Side,
        case: Case,
        plan: Plan,
        dtype: str,
        sink: Sink,
        reference: Callable[[str], Store],
        progress: Callable[[int, int], None],
        perturbation: int | None = None,
        modules: tuple[str, ...] = ("*",),
        copy: bool = True,
        looking: bool = False,
    ) -> None:
        """`looking`: this recording is the one that `recorded` reads from, and has to say how values lay."""
        self.side, self.case, self.plan, self.dtype = side, case, plan, dtype
        self._sink, self._reference, self.progress = sink, reference, progress
        self._perturbation, self._modules, self._copy, self._looking = perturbation, modules, copy, looking

    def package(self, module: str) -> ModuleType:
        """A module of the side's own package: `package("losses")` is `torch_ref.losses` or `paddle_impl.losses`."""
        name = f"{self.case.package(self.side.name)}.{module}"
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not error.name or not f"{name}.".startswith(f"{error.name}."):
                raise
            field = "reference_package" if self.side.name == "torch" else "port_package"
            raise UsageError(
                f"case {self.case.name}, {self.side.name} side: it calls {name}, and there is no {error.name!r}: "
                f"write it, name another package with `{field}`, or leave the step out of the case's `steps`"
            ) from None

    def model(self, training: bool = False, changes: Mapping[str, Any] | None = None) -> Any:
        """The case's model with the plan's weights, loaded by the harness: a bug in `weights` must not reach here.

        `changes` go over the arguments that the case builds with; the weights stay the same.
        """
        builder, arguments = resolve(self.case.builder(self.side.name)), {**self.case.build, **(changes or {})}
        entries = self.plan.tensors.entries.values()
        memory.make_room(sum(entry.nbytes for entry in entries if entry.name.startswith("weights/")))
        state = self.naming.to_own(self.arrays("weights/"))
        model = self.side.build(builder, arguments, drawn=False)
        if any(spec.name not in state or state[spec.name].shape != spec.shape for spec in self.side.specs(model)):
            model = self.side.build(builder, arguments)  # what stays as made is as its builder makes it
        mapping.check(self.case.mapping, "modules", self.side.name, self.side.modules(model))
        known = {spec.name for spec in self.side.specs(model)}
        mapping.check(self.case.mapping, "parameters", self.side.name, known)
        if self.case.pair:  # what has no counterpart, or none of its shape, stays as made, and is a row that fails
            held = {name: array for name, (_, array) in self.side.state(model).items()}
            state = held | {name: array for name, array in state.items() if array.shape == held[name].shape}
        self.side.load(model, state)
        self.side.set_training(model, training)
        return model

    def built(self, seed: int = 0, changes: Mapping[str, Any] | None = None) -> Any:
        """The case's model as its builder makes it, with nothing loaded."""
        builder = resolve(self.case.builder(self.side.name))
        return self.side.build(builder, {**self.case.build, **(changes or {})}, seed=seed)

    @property
    def reference_names(self) -> dict[str, str]:
        """The reference's name of every tensor of the side's model by its own."""
        return self.naming.reference

    @cached_property
    def naming(self) -> Naming:
        """Which of the side's tensors are which of the reference's: by the mapping, or the case's rule."""
        shapes = {
            name.removeprefix("weights/"): entry.shape
            for name, entry in self.plan.tensors.entries.items()
            if name.startswith("weights/")
        }
        if self.side.name == "torch":
            return Naming({name: name for name in shapes}, shapes)
        mapping.check(self.case.mapping, "parameters", "torch", shapes)
        chosen = dict(self.case.mapping.get("parameters", {}))
        told = {part for name in chosen for part in parts(name)}
        if not self.case.pair:
            rule = resolve(self.case.port_names) if self.case.port_names else str
            chosen |= {name: rule(name) for name in shapes if name not in told}
        seen: dict[str, str] = {}
        for name, own in chosen.items():
            for part in parts(own):
                if part in seen:
                    raise UsageError(f"{seen[part]} and {name} of the reference would both be {part} of the port")
                seen[part] = name
        return Naming(chosen, shapes)

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The plan's arrays under a prefix, named without it."""
        return {n.removeprefix(prefix): self.array(n) for n in self.plan.tensors if n.startswith(prefix)}

    def array(self, name: str) -> np.ndarray:
        """One array of the plan; in a run that measures noise, moved by one ulp of the run's dtype."""
        return self._moved(name, self.plan.tensors[name])

    def cotangent(self, number: int, shape: tuple[int, ...]) -> Any:
        """What backward begins with at the model's output of that number: standard-normal, the same on both sides."""
        rng = np.random.default_rng([self.case.seed, 5, number])
        return self.side.from_numpy(self._moved(f"cotangent/{number}", rng.standard_normal(shape).astype(np.float32)))

    def _moved(self, name: str, array: np.ndarray) -> np.ndarray:
        if self._perturbation is None or array.dtype.kind != "f":
            return array
        return one_ulp_off(array, self.dtype, np.random.default_rng([self._perturbation, zlib.crc32(name.encode())]))

    def tensor(self, name: str, *, gradient: bool = False) -> Any:
        """A tensor of the plan, floating ones in the run's dtype."""
        return self.side.from_numpy(self.array(name), gradient=gradient)

    def observing(self, model: Any, *, gradients: bool = False) -> AbstractContextManager[None]:
        """Record every module of the model while it runs inside this block."""
        return observe(self.side, model, self._sink, gradients=gradients, only=self._modules, copy=self._copy)

    @contextmanager
    def randomness(self, scope: str, model: Any = None, counted: str | None = None) -> Iterator[Tape]:
        """Random functions of the framework, of numpy and of Python give both sides the same numbers in this block.

        Those of the framework are answered by the tape that is handed out, see `Side.drawing`; the generators of
        `numpy.random` and `random` are seeded, and put back afterwards. All depends on the plan's seed and on `scope`
        alone, neither on the dtype nor on a perturbation.

        `counted` names a row for the number of draws, if there are any. Then the port's masks lie where the reference's
        values lay: the reference's row tells, and the step must be one that the port waits for (`Case.followed`).
        """
        mapped = self.case.mapping
        unlike = self.case.port_names is not None or bool(mapped.get("modules"))
        unlike = unlike or any(name != own for name, own in mapped.get("parameters", {}).items())
        looking = bool(counted) and self._looking and not self.perturbed
        laid = self._laid(scope.partition("/")[0], counted) if counted and self.side.name != "torch" else {}
        tape = Tape(self.case.seed, scope, by_order=unlike, looking=looking, laid=laid)
        states = random.getstate(), np.random.get_state()
        seed = zlib.crc32(f"{self.case.seed}/{scope}".encode())
        random.seed(seed)
        np.random.seed(seed)
        try:
            with self.side.drawing(tape, model):
                yield tape
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
        if counted and tape.log:
            facts = {"laid": [[*draw, found.as_json()] for draw, found in tape.laid.items()]}
            self.emit(counted, np.int64(len(tape.log)), "statistic", facts=facts if tape.laid else None)

    def _laid(self, step: str, counted: str) -> dict[tuple[str, int], Slices]:
        """What the reference's row tells; nothing where a trace is made of a step that was never recorded."""
        try:
            entry = self.recorded(step).entries.get(counted)
        except UsageError:
            return {}
        told = (entry.facts or {}).get("laid", ()) if entry else ()
        return {(module, index): Slices.from_json(axes) for module, index, axes in told}

    def watching(self, model: Any, **objects: tuple[Any, str]) -> AbstractContextManager[None]:
        """Around a training loop, for whoever looks at its acts (`align.record.acts`); nobody does while it records.

        `objects` are what the packages made for it, (object, method) by the kind of act that the method is.
        """
        return nullcontext()

    @property
    def perturbed(self) -> bool:
        """Whether this run only measures noise: what does not round need not be done."""
        return self._perturbation is not None

    def inputs(self, *, gradient: bool = False) -> dict[str, Any]:
        """The model's inputs by name; with `gradient`, floating ones are leaves that are given one."""
        kinds = {spec.name: self.plan.tensors[f"input/{spec.name}"].dtype.kind for spec in self.case.inputs}
        return {name: self.tensor(f"input/{name}", gradient=gradient and kinds[name] == "f") for name in kinds}

    def recorded(self, step: str) -> Store:
        """What the reference recorded in the working dtype for an earlier step."""
        return self._reference(step)

    def scalar(self, value: float) -> float:
        """A recipe value as both sides shall use it.

        Paddle's kernels hold scalars in float32 even when tensors are float64, so in the twin both sides use the
        float32 value; what then still differs is meaning.
        """
        return float(np.float32(value)) if self.dtype == "float64" else value

    def scalars(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.scalar(value) if isinstance(value, float) else value for name, value in values.items()}

    def emit(
        self, name: str, value: Any, kind: str, *, headline: bool = False, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Record a tensor, array or number; tuples, lists and dictionaries are flattened by path.

        `facts` are told beside a single one and not compared.
        """
        if isinstance(value, Mapping):
            for key, item in value.items():
                self.emit(f"{name}/{key}", item, kind, headline=headline)
        elif isinstance(value, (tuple, list)):
            for index, item in enumerate(value):
                self.emit(f"{name}/{index}", item, kind, headline=headline)
        elif value is not None:
            self._sink.add(name, self.side.to_numpy(value), kind, headline=headline, facts=facts)

    def emit_draws(self, tape: Tape) -> None:
        """Record every draw: `draw/<module call>/<index>/shape`, without axes of one, and `.../<kind>`, its settings.

        How often, from where and over which axes is thus compared draw by draw, and rates exactly. The shape is sorted
        where two models stand alone: a port may hold its axes in another order.
        """
        for draw in tape.log:
            name = f"draw/{draw.module}/{draw.index}" if draw.module else f"draw/{draw.index}"
            shape = [size for size in draw.shape if size != 1]
            shape = sorted(shape) if self.case.alone else shape
            self.emit(f"{name}/shape", np.array(shape, np.int64), "statistic")
            if draw.settings:
                self.emit(f"{name}/{draw.kind}", np.array(list(draw.settings.values()), np.float64), "statistic")


def arguments(case: Case, tensors: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Tensors by the name of the case's input, as the model takes them: positional arguments, and keywords."""
    given: dict[str, Any] = {}
    for spec in case.inputs:
        argument, dot, key = spec.argument.partition(".")
        argument = argument or str(sum(name.isdigit() for name in given))
        if dot:
            given.setdefault(argument, {})[key] = tensors[spec.name]
        else:
            given[argument] = tensors[spec.name]
    positional = sorted((name for name in given if name.isdigit()), key=int)
    return [given[name] for name in positional], {name: v for name, v in given.items() if not name.isdigit()}
