"""Every module's inputs and outputs, and the gradients that reach the outputs, recorded while a model runs."""

import math
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
    """Record `activation/<module>/in|out[/<path>]` in call order, and `activation_grad/<module>/out[/<path>]`.

    The k-th further call of one module is `<module>#k`. A tensor that was recorded before and has not been written to
    since becomes an alias. `only` are patterns of module names. The hooks are removed whatever happens. Without `copy`
    the sink is given views of the tensors' own memory, and a way to ask whether they have been written to since.
    """
    calls: Counter[str] = Counter()
    backward: Counter[str] = Counter()
    running: list[tuple[str, str]] = []
    known: dict[int, tuple[Any, int | None, str]] = {}
    owned, given = _Spans(), _Spans()  # memory of the model, and of what it is called with
    owned.extend(map(side.memory, side.tensors(model)))

    def version_of(tensor: Any) -> int | None:
        """None where a write to the tensor might not be counted."""
        return None if side.memory(tensor)[0] in owned else side.version(tensor)

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
        version = version_of(tensor)
        held = known.get(id(tensor))
        if held and held[0] is tensor and held[1] == version is not None:
            sink.alias(name, held[2], kind)
            return
        add(name, tensor, kind, passing(tensor))
        known[id(tensor)] = (tensor, version, name)  # holding the tensor keeps its id from being used again

    def put_gradient(name: str, view_it: bool, tensor: Any) -> None:
        again = f"#{backward[name]}" if backward[name] else ""  # a second backward through the same forward
        backward[name] += 1
        add(name + again, tensor, "gradient", view_it)

    def on_gradient(tensor: Any, name: str) -> None:
        side.on_gradient(tensor, partial(put_gradient, name, passing(tensor)))

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

    def after(module: str, outputs: Any) -> None:
        name, label = running.pop()
        while name != (module or ROOT_MODULE):  # that one raised, and its caller went on
            name, label = running.pop()
        if not _wanted(name, only):
            return
        for path, tensor in leaves(side, outputs):
            put(f"activation/{label}/out{path}", tensor, "activation")
            if gradients:
                on_gradient(tensor, f"activation_grad/{label}/out{path}")

    def probed(name: str, tensor: Any) -> None:
        label = f"{name}#{calls[f'probe {name}']}" if calls[f"probe {name}"] else name
        calls[f"probe {name}"] += 1
        put(f"probe/{label}", tensor, "activation")
        if gradients:
            on_gradient(tensor, f"probe_grad/{label}")

    with side.hooked(model, before, after), listening(probed):
        yield


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
