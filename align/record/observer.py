"""Every module's inputs and outputs, and the gradients that reach them, recorded while a model runs."""

import math
import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Protocol

import numpy as np

from align.probing import listening
from align.record.calls import ROOT_MODULE
from align.sides import Side


class Sink(Protocol):
    """Where tensors go: a store's writer, or a meter that compares them with a recorded truth."""

    def add(
        self,
        name: str,
        array: np.ndarray,
        kind: str,
        *,
        headline: bool = ...,
        facts: Mapping[str, Any] | None = ...,
        unchanged: Callable[[], bool] | None = ...,
    ) -> Any: ...

    def alias(self, name: str, existing: str, kind: str) -> Any: ...


@contextmanager
def observe(
    side: Side, model: Any, sink: Sink, *, gradients: bool = False, only: tuple[str, ...] = ("*",), copy: bool = True
) -> Iterator[None]:
    """Record `activation/<module>/in|out[/<path>]` in call order; with `gradients`, `activation_grad/...` alike.

    The k-th further call of one module is `<module>#k`. A tensor that was recorded before and has not been written to
    since becomes an alias, and so does its gradient: that is the whole of it, summed over all that read the tensor.
    `only` are patterns of module names. The hooks are removed whatever happens. Without `copy` the sink is given views
    of the tensors' own memory, and a way to ask whether they have been written to since.
    """
    calls: Counter[str] = Counter()
    backward: Counter[str] = Counter()
    running: list[tuple[str, str]] = []
    owned, given = _Spans(), _Spans()  # memory of the model, and of what it is called with
    owned.extend(map(side.memory, side.tensors(model)))

    def version_of(tensor: Any) -> int | None:
        """None where a write to the tensor might not be counted."""
        return None if side.memory(tensor)[0] in owned else side.version(tensor)

    known, awaited = _Notes(version_of), _Notes(side.version)  # a value's name; a gradient's names
    lasting: list[Any] = []  # hooks on tensors that outlive a pass

    def passing(tensor: Any) -> bool:
        """Whether no one but the operations of this pass writes there, and its gradient is not added up with others."""
        address = side.memory(tensor)[0]
        return address not in owned and address not in given

    def add(name: str, tensor: Any, kind: str, view_it: bool) -> None:
        version = side.version(tensor)
        view = side.view(tensor) if view_it and not copy and version is not None else None
        if view is None:
            sink.add(name, side.to_numpy(tensor), kind)
        else:
            sink.add(name, view, kind, unchanged=lambda: side.version(tensor) == version)

    def put(name: str, tensor: Any, kind: str) -> None:
        if existing := known.of(tensor):
            sink.alias(name, existing, kind)
            return
        add(name, tensor, kind, passing(tensor))
        known.note(tensor, name)

    def put_gradient(names: list[str], view_it: bool, tensor: Any) -> None:
        first = ""
        for name in names:
            again = f"#{backward[name]}" if backward[name] else ""  # a second backward through the same forward
            backward[name] += 1
            if first:
                sink.alias(name + again, first, "gradient")
            else:
                first = name + again
                add(first, tensor, "gradient", view_it)

    def await_gradient(name: str, tensor: Any) -> None:
        if not gradients:
            return
        if names := awaited.of(tensor):
            names.append(name)
            return
        names, passes = [name], passing(tensor)
        awaited.note(tensor, names)
        handle = side.on_gradient(tensor, partial(put_gradient, names, passes))
        if handle and not passes:
            lasting.append(handle)

    def before(module: str, arguments: Any) -> None:
        name = module or ROOT_MODULE
        label = f"{name}#{calls[name]}" if calls[name] else name
        calls[name] += 1
        running.append((name, label))
        if not module:
            given.extend(side.memory(tensor) for _, tensor in leaves(side, arguments))
        if _wanted(name, only):
            # In-place modules overwrite their input, so it is taken before they run.
            for path, tensor in leaves(side, arguments):
                put(f"activation/{label}/in{path}", tensor, "input")
                await_gradient(f"activation_grad/{label}/in{path}", tensor)

    def after(module: str, outputs: Any) -> None:
        name, label = running.pop()
        while name != (module or ROOT_MODULE):  # that one raised, and its caller went on
            name, label = running.pop()
        if not _wanted(name, only):
            return
        for path, tensor in leaves(side, outputs):
            put(f"activation/{label}/out{path}", tensor, "activation")
            await_gradient(f"activation_grad/{label}/out{path}", tensor)

    def probed(name: str, tensor: Any) -> None:
        label = f"{name}#{calls[f'probe {name}']}" if calls[f"probe {name}"] else name
        calls[f"probe {name}"] += 1
        put(f"probe/{label}", tensor, "activation")
        await_gradient(f"probe_grad/{label}", tensor)

    try:
        with side.hooked(model, before, after), listening(probed):
            yield
    finally:
        for handle in lasting:
            handle.remove()


class _Notes:
    """A note on a tensor, which holds as long as the tensor lives and is not written to.

    Tensors are not kept alive for it: a pass that cannot reuse the memory of what it let go of is slower.
    """

    def __init__(self, version: Callable[[Any], int | None]) -> None:
        self._version = version
        self._notes: dict[int, tuple[Callable[[], Any], int | None, Any]] = {}

    def note(self, tensor: Any, what: Any) -> None:
        self._notes[id(tensor)] = weakref.ref(tensor), self._version(tensor), what

    def of(self, tensor: Any) -> Any:
        """None if there is none, or where a write to the tensor might not be counted."""
        held = self._notes.get(id(tensor))  # the number may be another tensor's by now
        return held[2] if held and held[0]() is tensor and held[1] == self._version(tensor) is not None else None


class _Spans:
    """Memory that lasts longer than a pass: of parameters, buffers, and what a model is given.

    Optimizers, running statistics and accumulated gradients are written there, and not every such write is counted in
    a tensor's version: in Paddle an optimizer's is not, nor in either framework that of batch normalisation.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    def extend(self, spans: Iterable[tuple[int, int]]) -> None:
        """Add (address, bytes) of more."""
        self._spans = sorted({*self._spans, *((start, start + length) for start, length in spans if length)})

    def __contains__(self, address: int) -> bool:
        """Whether a tensor that starts there lies in any of them: it is the same, or a view."""
        at = bisect_right(self._spans, (address, math.inf)) - 1
        return at >= 0 and address < self._spans[at][1]


def leaves(side: Side, value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, tensor) of every tensor in nested tuples, lists, dictionaries and dataclasses, in order."""
    if is_dataclass(value) and not isinstance(value, (Mapping, type)):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if side.is_tensor(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(side, item, f"{path}/{key}")
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from leaves(side, item, path if len(value) == 1 and not path else f"{path}/{index}")


def _wanted(name: str, only: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in only)
