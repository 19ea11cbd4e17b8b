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
from align.sides import Side

ROOT_MODULE = "(model)"


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
    lasting = _Spans(map(side.memory, side.tensors(model)))

    def version_of(tensor: Any) -> int | None:
        """None where a write to the tensor might not be counted."""
        return None if side.memory(tensor)[0] in lasting else side.version(tensor)

    def add(name: str, tensor: Any, kind: str, version: int | None) -> None:
        view = None if copy or version is None else side.view(tensor)
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
        add(name, tensor, kind, version)
        known[id(tensor)] = (tensor, version, name)  # holding the tensor keeps its id from being used again

    def put_gradient(name: str, steady: bool, tensor: Any) -> None:
        again = f"#{backward[name]}" if backward[name] else ""  # a second backward through the same forward
        backward[name] += 1
        add(name + again, tensor, "gradient", side.version(tensor) if steady else None)

    def on_gradient(tensor: Any, name: str) -> None:
        # The gradient of a parameter, or of a view of one, may be the memory that all its gradients are added up in.
        side.on_gradient(tensor, partial(put_gradient, name, version_of(tensor) is not None))

    def before(module: str, arguments: Any) -> None:
        name = module or ROOT_MODULE
        label = f"{name}#{calls[name]}" if calls[name] else name
        calls[name] += 1
        running.append((name, label))
        if not module:  # what a caller hands in is the caller's, its gradient too
            lasting.extend(side.memory(tensor) for _, tensor in leaves(side, arguments))
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

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._spans: list[tuple[int, int]] = []
        self.extend(spans)

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
