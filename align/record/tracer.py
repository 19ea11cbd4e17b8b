"""Numbers values and notes operations while a traced block runs; what a framework must offer for that is a `Probe`."""

import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any, NamedTuple, Protocol

import numpy as np

from align.record.observer import ROOT_MODULE, Sink
from align.record.stack import Stacks
from align.record.trace import Operation, Trace, Untraced, Value, neutral_name, plain_attributes


class Probe(Protocol):
    """What a tracer asks of a framework's tensors; nothing here may be noted as an operation itself."""

    def is_tensor(self, value: Any) -> bool: ...
    def version(self, tensor: Any) -> int: ...
    def region(self, tensor: Any) -> Hashable:
        """Address, shape, strides and type: equal while both live only if the two are the same memory."""

    def storage(self, tensor: Any) -> Hashable:
        """Shared by all views of one memory."""

    def describe(self, tensor: Any) -> tuple[tuple[int, ...], str, bool]:
        """(shape, dtype name, whether a gradient may flow to it)."""

    def copy(self, tensor: Any) -> np.ndarray: ...
    def watch(self, tensor: Any, callback: Callable[[Any], None]) -> Callable[[], None]:
        """Call back with the whole gradient that reaches the tensor as it is now; the answer ends that."""


class Named(NamedTuple):
    """A tensor of the model: where it is from, its name, the tensor, and how its array gets the reference's layout."""

    origin: str
    name: str
    tensor: Any
    layout: Callable[[np.ndarray], np.ndarray] | None = None


# A side's `hooked`: calls back with a module's name and inputs, and name and outputs, around every module.
Hooked = Callable[[Any, Callable[[str, Any], None], Callable[[str, Any], None]], AbstractContextManager[None]]


class _Known(NamedTuple):
    tensor: Callable[[], Any]
    version: int
    number: int


class Tracer:
    """One traced block. The side's dispatcher calls `read` before and `note` after every operation."""

    def __init__(self, side: str, probe: Probe, sink: Sink, named: Iterable[Named], gradients: bool) -> None:
        self.trace = Trace(side)
        self._probe, self._sink, self._stacks, self._gradients = probe, sink, Stacks(), gradients
        self._named = {id(entry.tensor): entry for entry in named}  # holds the tensors, so that no id is used again
        self._known: dict[int, _Known] = {}
        self._regions: dict[Hashable, _Known] = {}
        self._writes: dict[Hashable, tuple[int, int]] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._names: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._running: list[str] = []
        self._holes: list[tuple[int, str]] = []

    def given(self, value: Any, path: str = "") -> None:
        """Take every tensor in nested tuples, lists and dictionaries that is not known yet as an input."""
        for name, tensor in _leaves(self._probe, value, path):
            if self._find(tensor, self._probe.version(tensor)) is None and id(tensor) not in self._named:
                self._store(tensor, "input", self._once(f"input/{name.lstrip('/')}"), "input", None)

    def enter(self, module: str, arguments: Any) -> None:
        """A module begins to run; what an outermost one is given are inputs."""
        name = module or ROOT_MODULE
        label = f"{name}#{self._calls[name]}" if self._calls[name] else name
        self._calls[name] += 1
        if not self._running:
            self.given(arguments, f"{label}/in")
        self._running.append(label)

    def leave(self, module: str, outputs: Any) -> None:
        """The module that began last is done."""
        if self._running:
            self._running.pop()

    def read(self, tensors: Sequence[Any]) -> list[int]:
        """Numbers of the values that an operation is about to read; what is new is stored before it can be changed."""
        self._holes.clear()
        return [self._number(tensor) for tensor in tensors]

    def note(
        self,
        function: str,
        tensors: Sequence[Any],
        inputs: Sequence[int],
        versions: Sequence[int],
        outputs: Iterable[Any],
        arguments: Iterable[tuple[str, Any]],
        frame: FrameType | None,
        written: Sequence[Any] = (),
    ) -> None:
        """Note an operation that has run, unless it made nothing new.

        `tensors` are what it read, `inputs` and `versions` their numbers and versions before; `written` those of its
        arguments that it changed although their versions may not say so.
        """
        version = self._probe.version
        changed = {id(t): t for t, before in zip(tensors, versions, strict=True) if version(t) != before}
        changed |= {id(tensor): tensor for tensor in written}
        made = list({id(tensor): tensor for tensor in (*outputs, *changed.values())}.values())
        fresh = [t for t in made if id(t) in changed or self._is_new(t)]
        if not fresh:
            return
        index = len(self.trace.operations)
        names = [f"op/{index}/{k}" for k in range(len(fresh))] if len(fresh) > 1 else [f"op/{index}"]
        fresh_names = {id(tensor): name for tensor, name in zip(fresh, names, strict=True)}
        numbers = []
        for tensor in made:
            name = fresh_names.get(id(tensor))
            if name is None:
                numbers.append(self._known[id(tensor)].number)
            else:
                numbers.append(self._store(tensor, "operation", name, "activation", index, id(tensor) in changed))
        for tensor in changed.values():
            self._writes[self._probe.storage(tensor)] = (index, version(tensor))
        stack = self._stacks.at(frame)
        place = stack.place
        self.trace.operations.append(
            Operation(
                index,
                neutral_name(function),
                tuple(inputs),
                tuple(numbers),
                {"function": function, **plain_attributes(arguments)},
                bool(changed),
                place.file,
                place.line,
                place.end_line,
                place.code,
                stack.frames,
                self._running[-1] if self._running else "",
            )
        )
        for number, text in self._holes:
            where = f"operation {index} ({function}) at {place.file}:{place.line} reads {text}"
            self.trace.holes.append(Untraced(index, number, where))

    def take_gradient(self, owner: Any, gradient: Any) -> None:
        """A `.grad` was read: it is the result of a backward pass, which has no operations of its own."""
        if self._find(gradient, self._probe.version(gradient)) is None:
            entry = self._named.get(id(owner))
            name = self._once(f"gradient/{entry.name if entry else 'unnamed'}")
            self._store(gradient, "gradient", name, "gradient", None, layout=entry.layout if entry else None)

    def close(self) -> None:
        """No gradient is recorded from here on."""
        for end in self._watched.values():
            end()
        self._watched.clear()

    def _number(self, tensor: Any) -> int:
        version = self._probe.version(tensor)
        known = self._find(tensor, version)
        if known is not None:
            value = self.trace.values[known.number]
            if self._gradients and known.number not in self._watched and value.operation is not None:
                self._watch(tensor, known.number)  # made where no gradient could flow yet: autograd functions
            return known.number
        held = self._known.get(id(tensor))
        if held is not None and held.tensor() is tensor:
            return self._rewritten(tensor, version)
        named = self._named.get(id(tensor))
        if named is not None:
            kind = "buffer" if named.origin == "attribute" else named.origin
            return self._store(tensor, named.origin, f"{named.origin}/{named.name}", kind, None, layout=named.layout)
        return self._hole(tensor, "that no traced operation, input or parameter produced")

    def _rewritten(self, tensor: Any, version: int) -> int:
        """A tensor that was written to through another view of its memory."""
        index, at = self._writes.get(self._probe.storage(tensor), (-1, -1))
        if at != version:
            return self._hole(tensor, "that something untraced has written to")
        operation = self.trace.operations[index]
        number = self._store(tensor, "operation", f"op/{index}/{len(operation.outputs)}", "activation", index, True)
        self.trace.operations[index] = replace(operation, outputs=(*operation.outputs, number))
        return number

    def _hole(self, tensor: Any, why: str) -> int:
        number = self._store(tensor, "untraced", self._once("untraced/0"), "activation", None)
        self._holes.append((number, f"a tensor of shape {list(self.trace.values[number].shape)} {why}"))
        return number

    def _find(self, tensor: Any, version: int) -> _Known | None:
        """The value a tensor is known to hold: its own, or that of a living tensor in the very same memory."""
        known = self._known.get(id(tensor))
        if known is not None and known.tensor() is tensor:
            return known if known.version == version else None
        return None if id(tensor) in self._named else self._twin(tensor)

    def _is_new(self, tensor: Any) -> bool:
        known = self._known.get(id(tensor))
        return known is None or known.tensor() is not tensor or known.version != self._probe.version(tensor)

    def _twin(self, tensor: Any) -> _Known | None:
        """Another, living tensor in the same memory whose value is known: a detached one, a new wrapper."""
        region = self._probe.region(tensor)
        known = self._regions.get(region)
        if known is None:
            return None
        other = known.tensor()  # while it lives, its memory cannot be used again
        if other is None or other is tensor or self._probe.version(other) != known.version:
            return None
        return known if self._probe.region(other) == region else None

    def _store(
        self,
        tensor: Any,
        origin: str,
        name: str,
        kind: str,
        operation: int | None,
        written: bool = False,
        layout: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> int:
        """Give the tensor's present value a number and its array to the sink."""
        probe, number = self._probe, len(self.trace.values)
        shape, dtype, gradient = probe.describe(tensor)
        twin = None if written else self._twin(tensor)
        if twin is None:
            array = probe.copy(tensor)
            self._sink.add(name, array if layout is None else layout(array), kind)
        else:
            self._sink.alias(name, self.trace.values[twin.number].name, kind)
        self.trace.values.append(Value(number, origin, name, operation, shape, dtype, gradient))
        known = _Known(weakref.ref(tensor), probe.version(tensor), number)
        self._known[id(tensor)] = known
        region = probe.region(tensor)
        if twin is None and region is not None and layout is None:
            self._regions[region] = known
        if self._gradients and gradient and origin in ("operation", "input"):
            self._watch(tensor, number)
        return number

    def _watch(self, tensor: Any, number: int) -> None:
        if self._probe.describe(tensor)[2]:
            name = self.trace.values[number].gradient_name
            self._watched[number] = self._probe.watch(tensor, partial(self._put_gradient, name))

    def _put_gradient(self, name: str, gradient: Any) -> None:
        if gradient is not None:  # Paddle's kernels have outputs that serve their backward only
            self._sink.add(self._once(name), self._probe.copy(gradient), "gradient")

    def _once(self, name: str) -> str:
        times = self._names[name]
        self._names[name] += 1
        return f"{name}#{times}" if times else name


def _leaves(probe: Probe, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if probe.is_tensor(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(probe, item, f"{path}/{key}")
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _leaves(probe, item, f"{path}/{index}")


def tensors_in(value: Any, kind: type, found: list[Any]) -> list[Any]:
    """Append every tensor of class `kind` in nested tuples, lists and dictionaries to `found`."""
    if isinstance(value, kind):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            tensors_in(item, kind, found)
    elif isinstance(value, dict):
        for item in value.values():
            tensors_in(item, kind, found)
    return found
