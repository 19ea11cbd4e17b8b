"""Numbers values and notes operations while a traced block runs; what a framework must offer for that is a `Probe`."""

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import is_dataclass, replace
from functools import partial
from types import FrameType
from typing import Any, Protocol

import numpy as np

from align.record.calls import Calls
from align.record.identities import Identities, Tensors
from align.record.observer import Sink
from align.record.stack import Stacks
from align.record.trace import Operation, Trace, Untraced, Value, held_in, neutral_name, plain_attributes
from align.sides import Named


class Probe(Tensors, Protocol):
    """What a tracer asks of a framework's tensors; nothing here may be noted as an operation itself."""

    def is_tensor(self, value: Any) -> bool: ...
    def describe(self, tensor: Any) -> tuple[tuple[int, ...], str, bool]:
        """(shape, dtype name, whether a gradient may flow to it)."""

    def copy(self, tensor: Any) -> np.ndarray: ...
    def watch(self, tensor: Any, callback: Callable[[Any], None]) -> Callable[[], None]:
        """Call back with the whole gradient that reaches the tensor as it is now; the answer ends that."""


# A side's `hooked`: calls back with a module's name and inputs, and name and outputs, around every module.
Hooked = Callable[[Any, Callable[[str, Any], None], Callable[[str, Any], None]], AbstractContextManager[None]]


class Tracer:
    """One traced block. The side's dispatcher calls `read` before and `note` after every operation."""

    def __init__(self, side: str, probe: Probe, sink: Sink, named: Iterable[Named], gradients: bool) -> None:
        self.trace = Trace(side)
        self._probe, self._sink, self._stacks, self._gradients = probe, sink, Stacks(), gradients
        self._named = {id(entry.tensor): entry for entry in named}  # holds the tensors, so that no id is used again
        self._identities = Identities(probe)
        self._watched: dict[int, Callable[[], None]] = {}
        self._names: Counter[str] = Counter()
        self._calls = Calls()
        self._open = True
        self._holes: list[tuple[int, str]] = []
        # Set by the side: the same function, whose own operations are not noted.
        self.unseen: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function

    def given(self, value: Any, path: str = "") -> None:
        """Take every tensor in nested tuples, lists and dictionaries that is not known yet as an input."""
        for name, tensor in _leaves(self._probe, value, path):
            if self._find(tensor) is None and id(tensor) not in self._named:
                self._store(tensor, "input", self._once(f"input/{name.lstrip('/') or 0}"), "input")

    def enter(self, module: str, arguments: Any) -> None:
        """A module begins to run; what an outermost one is given are inputs."""
        label = self._calls.enter(module)
        if not self._calls.parent:
            self.given(arguments, f"{label}/in")

    def running(self) -> str:
        """The innermost module call that runs now, empty outside all."""
        return self._calls.innermost

    def leave(self, module: str, outputs: Any) -> None:
        """A module is done, and with it those inside that did not get to their end: an exception left them."""
        self._calls.leave(module)

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
        version, own = self._probe.version, self._identities.own
        changed = {id(t): t for t, before in zip(tensors, versions, strict=True) if version(t) != before}
        changed |= {id(tensor): tensor for tensor in written}
        made = list({id(tensor): tensor for tensor in (*outputs, *changed.values())}.values())
        held = [None if id(tensor) in changed else own(tensor) for tensor in made]
        fresh = held.count(None)
        if not fresh:
            return
        index = len(self.trace.operations)
        numbers: list[int] = []
        for tensor in changed.values():
            self._identities.wrote(tensor, index)
        for tensor, number in zip(made, held, strict=True):
            if number is None:
                name = f"op/{index}/{len(numbers)}" if len(made) > 1 else f"op/{index}"
                number = self._store(tensor, "operation", name, "activation", index)
            numbers.append(number)
        stack, variables = self._stacks.at(frame)
        place, settings = stack.place, plain_attributes(arguments)
        self.trace.operations.append(
            Operation(
                index,
                neutral_name(function),
                tuple(inputs),
                tuple(numbers),
                {"function": function, **settings},
                bool(changed),
                place.file,
                place.line,
                place.end_line,
                place.code,
                stack.frames,
                self.running(),
                held_in(variables, settings, place.code),
            )
        )
        for number, text in self._holes:
            where = f"operation {index} ({function}) at {place.file}:{place.line} reads {text}"
            self.trace.holes.append(Untraced(index, number, where))

    def take_gradient(self, owner: Any, gradient: Any) -> None:
        """A `.grad` was read: it is the result of a backward pass, which has no operations of its own."""
        if self._find(gradient) is None:
            entry = self._named.get(id(owner))
            name = self._once(f"gradient/{entry.name if entry else 'unnamed'}")
            self._store(gradient, "gradient", name, "gradient", layout=entry.layout if entry else None)

    def close(self) -> None:
        """No gradient is recorded from here on."""
        self._open = False
        for end in self._watched.values():
            end()
        self._watched.clear()

    def _number(self, tensor: Any) -> int:
        number = self._find(tensor)
        if number is not None:
            # Autograd functions return what was made where no gradient could flow yet.
            if self._gradients and number not in self._watched and self.trace.values[number].operation is not None:
                self._watch(tensor, number)
            return number
        if self._identities.is_held(tensor):
            return self._rewritten(tensor)
        named = self._named.get(id(tensor))
        if named is None:
            return self._hole(tensor, "that no traced operation, input or parameter produced")
        kind = "buffer" if named.origin == "attribute" else named.origin
        return self._store(tensor, named.origin, f"{named.origin}/{named.name}", kind, layout=named.layout)

    def _find(self, tensor: Any) -> int | None:
        number = self._identities.own(tensor)
        if number is None and id(tensor) not in self._named and not self._identities.is_held(tensor):
            number = self._identities.twin(tensor)
        return number

    def _rewritten(self, tensor: Any) -> int:
        """What a tensor holds since it was written to through another that shares its memory."""
        index = self._identities.writer(tensor)
        if index is None:
            return self._hole(tensor, "that something untraced has written to")
        operation = self.trace.operations[index]
        number = self._store(tensor, "operation", f"op/{index}/{len(operation.outputs)}", "activation", index)
        self.trace.operations[index] = replace(operation, outputs=(*operation.outputs, number))
        return number

    def _hole(self, tensor: Any, why: str) -> int:
        number = self._store(tensor, "untraced", self._once("untraced/0"), "activation")
        self._holes.append((number, f"a tensor of shape {list(self.trace.values[number].shape)} {why}"))
        return number

    def _store(
        self,
        tensor: Any,
        origin: str,
        name: str,
        kind: str,
        operation: int | None = None,
        layout: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> int:
        """Give the tensor's present value a number and its array to the sink."""
        number = len(self.trace.values)
        shape, dtype, gradient = self._probe.describe(tensor)
        twin = self._identities.twin(tensor) if layout is None else None
        if twin is None:
            array = self._probe.copy(tensor)
            if layout is not None:
                array = layout(array)
                shape = array.shape
            self._sink.add(name, array, kind)
        else:
            self._sink.alias(name, self.trace.values[twin].name, kind)
        self.trace.values.append(Value(number, origin, name, operation, shape, dtype, gradient))
        self._identities.hold(tensor, number)
        if self._gradients and gradient and origin in ("operation", "input"):
            self._watch(tensor, number)
        return number

    def _watch(self, tensor: Any, number: int) -> None:
        if self._probe.describe(tensor)[2]:
            name = self.trace.values[number].gradient_name
            self._watched[number] = self._probe.watch(tensor, partial(self._put_gradient, name))

    def _put_gradient(self, name: str, gradient: Any) -> None:
        if gradient is not None and self._open:  # Paddle's kernels have outputs that serve their backward only
            self._sink.add(self._once(name), self._probe.copy(gradient), "gradient")

    def _once(self, name: str) -> str:
        times = self._names[name]
        self._names[name] += 1
        return f"{name}#{times}" if times else name


@contextmanager
def resting_collector() -> Iterator[None]:
    """Keep the garbage collector off what was there before.

    A trace makes enough small objects to set off full collections, each of which walks a whole framework: 0.2 s.
    """
    if gc.get_freeze_count():  # somebody else's
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _leaves(probe: Probe, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if probe.is_tensor(value):
        yield path, value
        return
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (tuple, list)):
        items = enumerate(value)
    else:
        return
    for index, (key, item) in enumerate(items):
        yield from _leaves(probe, item, f"{path}/{key if isinstance(key, (str, int)) else index}")


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
