"""Each module on the reference's values, so that only its own error shows.

The reference runs once with every module boundary made visible (`Boundaries`): what went in, what came out, and the
gradients on both. The port then runs with every boundary replaced by the reference's values (`Forced`): a module's
inputs, and its children's outputs, are the reference's, so what differs at its own output, at what it hands to a
child, or in the gradients of its own code, is its own doing. One pass finds every wrong module, not just the first.
"""

import math
import re
import traceback
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np

from align.record.calls import Calls
from align.record.observer import Sink, leaves
from align.record.places import Returns, built
from align.record.source import Place, is_user_file, statement_at, user_place
from align.record.store import Store
from align.record.subject import Subject
from align.record.trace import Trace
from align.record.tracer import Tracer
from align.sides import Side

LOSS = "(loss)"
Places = dict[str, dict[str, Any]]
NAME = re.compile(r"(?P<label>.+?)/(?P<what>in|out)(?P<path>(/[^/]+)*?)(?P<grad>/grad)?$")


class TensorName(NamedTuple):
    """What the name of a tensor at a boundary says: of which call, `in` or `out`, where in nested values."""

    label: str
    what: str
    path: str
    gradient: bool


def tensor_name(name: str) -> TensorName | None:
    """None for a parameter's gradient, which belongs to no boundary."""
    match = None if name.startswith("grad/") else NAME.match(name)
    return match and TensorName(match["label"], match["what"], match["path"], bool(match["grad"]))


def rebuilt(side: Side, value: Any, replace: Callable[[str, Any], Any], path: str = "") -> Any:
    """The same nested structure, every tensor replaced by `replace(path, tensor)`; paths as in `observer.leaves`."""
    if side.is_tensor(value):
        return replace(path, value)
    if is_dataclass(value) and not isinstance(value, (Mapping, type)):
        new = copy(value)
        for field in fields(value):
            # Not through a frozen class's own __setattr__.
            object.__setattr__(
                new, field.name, rebuilt(side, getattr(value, field.name), replace, f"{path}/{field.name}")
            )
        return new
    if isinstance(value, Mapping):
        changed = {key: rebuilt(side, item, replace, f"{path}/{key}") for key, item in value.items()}
        return changed if type(value) is dict else type(value)(**changed)
    if isinstance(value, (tuple, list)):
        single = len(value) == 1 and not path
        items = [rebuilt(side, v, replace, path if single else f"{path}/{i}") for i, v in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


class _Labels(Calls):
    """Module calls and their places."""

    def __init__(self, modules: Mapping[str, Any], returns: Returns) -> None:
        super().__init__()
        self._modules, self._returns = modules, returns
        self.places: Places = {}

    def enter(self, module: str) -> str:
        label = super().enter(module)
        call, made = user_place(), built(self._modules[module])
        self.places[label] = {"parent": self.parent, "type": type(self._modules[module]).__name__}
        self.places[label] |= {"call": call and call.as_json(), "built": made and made.as_json()}
        return label

    def leave(self, module: str) -> str:
        label = super().leave(module)
        returned = self._returns.last(self._modules[module])
        self.places[label]["returned"] = returned and returned.as_json()
        return label

    def left_open(self, error: Exception) -> Places:
        """The places, those of calls that an exception ended with the user's line that raised it."""
        walked = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__))
        inside = [place for place in walked if is_user_file(place[0])]
        row = statement_at(*inside[-1]) if inside else None
        raised = Place(inside[-1][0], *row).as_json() if row else None
        for place in self.places.values():
            if "returned" not in place:
                place["raised"] = raised
        return self.places


def record_boundaries(side: Side, subject: Subject, sink: Sink) -> Places:
    """The reference's pass: `<label>/in|out<path>`, and with a loss `<label>/in|out<path>/grad`, `grad/<parameter>`.

    The answer says of every call where it stands, and where its module was constructed.
    """
    returns = Returns()
    labels = _Labels(side.modules(subject.model), returns)
    names: list[str] = []
    arrived: dict[str, np.ndarray] = {}

    def visible(label: str, what: str) -> Callable[[str, Any], Any]:
        def fork(path: str, tensor: Any) -> Any:
            name = f"{label}/{what}{path}"
            sink.add(name, side.to_numpy(tensor), "activation")
            if subject.loss is None:
                return tensor
            forked = side.fork(tensor)
            names.append(name)
            # A hook, and not what the tensor holds in the end: that is the gradient of what was last written into it.
            side.on_gradient(forked, lambda gradient: arrived.update({name: side.to_numpy(gradient)}))
            return forked

        return fork

    def before(module: str, arguments: Any) -> Any:
        return rebuilt(side, arguments, visible(labels.enter(module), "in"))

    def after(module: str, outputs: Any) -> Any:
        return rebuilt(side, outputs, visible(labels.leave(module), "out"))

    with returns, side.hooked(subject.model, before, after):
        outputs = subject.run()
    if subject.loss is None:
        return labels.places
    loss = subject.loss(outputs)
    sink.add(f"{LOSS}/out", side.to_numpy(loss), "output")
    side.backward([loss])
    for name in names:
        if name in arrived:
            sink.add(f"{name}/grad", arrived[name], "gradient")
    for name, gradient in side.gradients(subject.model).items():
        if gradient is not None:
            sink.add(f"grad/{name}", gradient, "gradient")
    return labels.places


def record_forced(
    side: Side,
    subject: Subject,
    reference: Store,
    sink: Sink,
    tracer: Tracer | None = None,
    pairs: Mapping[str, str] | None = None,
    any_shape: bool = False,
    partial: bool = False,
) -> Places:
    """The port's pass on the reference's boundaries: the same names, holding what the port's own code made of them.

    A tensor of another shape is replaced too with `any_shape`; else it is left alone, and what it leads to differs.
    `pairs` are the reference's calls by the port's, where the module trees are unlike; other calls are left alone, and
    of a paired one the first tensor answers to the reference's first, whatever the arguments are called.

    With `partial`, an exception of the port's ends it: calls that it left open have a place `raised`, where it was.
    """
    returns = Returns()
    labels = _Labels(side.modules(subject.model), returns)
    roots: list[tuple[Any, np.ndarray]] = []
    held: list[tuple[str, Any]] = []

    order = _order(reference) if pairs is not None else {}

    def named(label: str, what: str, value: Any) -> dict[str, str]:
        """The reference's names of the tensors in a value, by their path in it; empty for a call that is left alone."""
        paths = [path for path, _ in leaves(side, value)]
        if pairs is None:
            return {path: f"{label}/{what}{path}" for path in paths}
        if label not in pairs:
            return {}
        there = order.get(f"{pairs[label]}/{what}", [])
        more = [f"{pairs[label]}/{what}{path}" for path in paths[len(there) :]]
        return dict(zip(paths, [*there, *more], strict=False))

    def forced(name: str, tensor: Any) -> Any:
        """A leaf with the reference's values in the place of the port's tensor."""
        if name not in reference:
            return tensor
        there, shape = reference[name].shape, tuple(tensor.shape)
        # Unlike trees may keep the same elements in another layout.
        layout = pairs is not None and math.prod(there) == math.prod(shape)
        if there != shape and (layout or not any_shape):
            return tensor
        leaf = side.from_numpy(reference[name], gradient=subject.loss is not None and reference[name].dtype.kind == "f")
        held.append((name, leaf))
        # A leaf must not be written into, which a module may do to what it is given.
        forked = leaf if subject.loss is None else side.fork(leaf)
        if tracer:
            tracer.given(forked, name)
        return forked

    def before(module: str, arguments: Any) -> Any:
        names = named(labels.enter(module), "in", arguments)
        for path, tensor in leaves(side, arguments) if names else ():
            sink.add(names[path], side.to_numpy(tensor), "input", facts={"history": side.has_history(tensor)})
            _root(tensor, f"{names[path]}/grad")
        return rebuilt(side, arguments, lambda path, tensor: forced(names[path], tensor)) if names else None

    def after(module: str, outputs: Any) -> Any:
        names = named(labels.leave(module), "out", outputs)
        for path, tensor in leaves(side, outputs) if names else ():
            sink.add(names[path], side.to_numpy(tensor), "activation")
            _root(tensor, f"{names[path]}/grad")
        return rebuilt(side, outputs, lambda path, tensor: forced(names[path], tensor)) if names else None

    def _root(tensor: Any, gradient: str) -> None:
        if subject.loss is None or gradient not in reference or not side.has_history(tensor):
            return
        if reference[gradient].shape == tuple(tensor.shape):
            roots.append((tensor, reference[gradient]))

    unseen = tracer.unseen if tracer else _as_it_is
    try:
        with returns, side.hooked(subject.model, unseen(before), unseen(after)):
            outputs = subject.run()
    except Exception as error:
        if not partial:
            raise
        return labels.left_open(error)
    if subject.loss is None:
        return labels.places
    loss = subject.loss(outputs)
    sink.add(f"{LOSS}/out", side.to_numpy(loss), "output")
    cotangents = [np.ones((), reference[f"{LOSS}/out"].dtype), *(gradient for _, gradient in roots)]
    side.backward([loss, *(tensor for tensor, _ in roots)], [side.from_numpy(c) for c in cotangents])
    for name, leaf in held:
        gradient = side.received(leaf)
        if gradient is not None:
            sink.add(f"{name}/grad", gradient, "gradient")
    for name, gradient in subject.naming.to_reference(side.gradients(subject.model)).items():
        if gradient is not None:
            sink.add(f"grad/{name}", gradient, "gradient")
    return labels.places


def _order(reference: Store) -> dict[str, list[str]]:
    """The names of the tensors that go into and come out of every call, by `<label>/in` and `<label>/out`, in order."""
    found: dict[str, list[str]] = {}
    for name in reference:
        if (tensor := tensor_name(name)) and not tensor.gradient:
            found.setdefault(f"{tensor.label}/{tensor.what}", []).append(name)
    return found


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class _Nowhere:
    """A sink for what has been recorded before."""

    def add(self, name: str, array: np.ndarray, kind: str, **_: Any) -> None:
        pass

    def alias(self, name: str, existing: str, kind: str) -> None:
        pass


class _Inside:
    """A sink that keeps only what is made while one of the named calls is the innermost."""

    def __init__(self, sink: Sink, modules: Collection[str]) -> None:
        self._sink, self._modules = sink, modules
        self._kept: set[str] = set()
        self.running: Callable[[], str] = str

    def add(self, name: str, array: np.ndarray, kind: str, **_: Any) -> None:
        running = self.running()
        if running in self._modules or "*" in self._modules or not running or kind in ("parameter", "gradient"):
            self._kept.add(name)
            self._sink.add(name, array, kind)

    def alias(self, name: str, existing: str, kind: str) -> None:
        if existing in self._kept:
            self._kept.add(name)
            self._sink.alias(name, existing, kind)


def traced(
    side: Side,
    subject: Subject,
    reference: Store | None,
    sink: Sink,
    modules: Collection[str],
    pairs: Mapping[str, str] | None = None,
    any_shape: bool = False,
    partial: bool = False,
) -> Trace:
    """Every operation of the named calls: of the reference as it runs, of the port on the reference's boundaries."""
    inside = _Inside(sink, modules)
    backward = subject.loss is not None
    with side.trace(inside, subject.model, inputs=(subject.inputs, subject.keywords), gradients=backward) as tracer:
        inside.running = tracer.running
        if reference is not None:
            record_forced(side, subject, reference, _Nowhere(), tracer, pairs, any_shape, partial)
        else:
            outputs = subject.run()
            if subject.loss:
                side.backward([subject.loss(outputs)])
    return tracer.trace
