"""One step run twice: to see which files take part, and then with every expression in them recorded."""

import ast
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np

from align import steps
from align.record.acts import watched
from align.record.context import Context
from align.record.instrument import Node, first_line, instrumented
from align.record.line_trace import LineTrace
from align.record.lines import Recorder
from align.record.objects import function_name
from align.record.source import is_user_file, place_at
from align.sides import Side

STEPS = Path(steps.__file__).parent
LONGEST = 200  # characters of an exception's first line


class Deaf:
    """A sink for a run of which only the lines matter."""

    def add(self, *_: Any, **__: Any) -> None: ...
    def alias(self, *_: Any) -> None: ...


class LineContext(Context):
    """Tells a listener what the step emits, before it becomes an array."""

    listener: Recorder | None = None

    def watching(self, model: Any, **objects: tuple[Any, str]) -> AbstractContextManager[None]:
        if not self.listener:
            return nullcontext()
        made = [(thing, method, kind) for kind, (thing, method) in objects.items()]
        return watched(self.side, model, made, self.listener.trace.acts, self.listener.emitted)

    def emit(self, name: str, value: Any, kind: str, **told: Any) -> None:
        if self.listener and value is not None and not isinstance(value, (dict, tuple, list)):
            self.listener.emitted(name, value)
        super().emit(name, value, kind, **told)


def traced(
    side: Side, package: str, record: Callable[[Context], None], context: Callable[[], LineContext], gathers: bool
) -> LineTrace:
    """Run a step's `record` and trace the lines of the side's package and of what it delegates to.

    So are those of a step that `gathers` what it emits from many answers. The framework is not traced. An exception of
    the port's ends the trace and is kept as its `raised`.
    """
    before = len(sys.modules)
    executed = _executed(lambda: record(context()), tolerant=side.name != "torch")
    if len(sys.modules) > before:  # what a file does while it is imported is not the step's
        executed = _executed(lambda: record(context()), tolerant=side.name != "torch")
    own = tuple(sorted(_files(package)))
    files = [*own, *sorted(_delegated(executed.keys() - set(own), side.name))]
    trace = LineTrace(own=own)
    harness = [file for file in executed if gathers and Path(file).parent == STEPS]
    listener = Recorder(side, trace, files, harness)
    files += harness
    observed = context()
    observed.listener = listener
    with instrumented({file: executed[file] for file in files if file in executed}, listener, trace.nodes):
        _constants(files, listener, trace.nodes)
        try:
            with _load_is_told(side, listener):
                record(observed)
        except Exception as error:
            if side.name == "torch":
                raise
            trace.raised = _raised(error)
    return trace


@contextmanager
def _load_is_told(side: Side, listener: Recorder) -> Iterator[None]:
    """Meanwhile the listener knows which parameters the harness has loaded: nobody has made these."""
    load = side.load

    def loading(model: Any, state: Mapping[str, np.ndarray]) -> None:
        load(model, state)
        layouts = {id(entry.tensor): entry.layout for entry in side.named(model)}
        listener.given(side.tensors(model), side.modules(model).values(), layouts)

    side.load = loading  # type: ignore[method-assign]
    try:
        yield
    finally:
        del side.load


def _files(package: str) -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py") and (name == package or name.startswith(f"{package}.")):
            yield file


def _executed(run: Callable[[], None], tolerant: bool) -> dict[str, set[int]]:
    """By file, the first lines of all Python functions that are called meanwhile."""
    codes: set[CodeType] = set()

    def called(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    previous = sys.getprofile()
    sys.setprofile(called)
    try:
        run()
    except Exception:
        if not tolerant:
            raise
    finally:
        sys.setprofile(previous)
    lines: dict[str, set[int]] = {}
    for code in codes:
        lines.setdefault(code.co_filename, set()).add(code.co_firstlineno)
    return lines


def _delegated(files: Iterable[str], framework: str) -> Iterator[str]:
    """The files of libraries that are built on the framework, such as timm: what both sides share cannot differ."""
    candidates = {file for file in files if is_user_file(file) and Path(file).is_file()}
    tops = {module.__file__: name.partition(".")[0] for name, module in _modules() if module.__file__ in candidates}
    built = {
        name.partition(".")[0]
        for name, module in _modules()
        if name.partition(".")[0] in tops.values()
        and any(_is_framework(value, framework) for value in list(vars(module).values()))
    }
    return (file for file, top in tops.items() if file and top in built)


def _modules() -> list[tuple[str, ModuleType]]:
    return [(name, module) for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)]


def _is_framework(value: Any, framework: str) -> bool:
    return isinstance(value, ModuleType) and value.__name__.partition(".")[0] == framework


def _raised(error: BaseException) -> dict[str, Any] | None:
    """The innermost place in user code where an exception, or the one that it was raised from, began; what it says."""
    lines = str(error).strip().splitlines() or [""]
    told = f"{type(error).__name__}: {lines[0][:LONGEST]}"
    while error.__cause__ is not None:
        error = error.__cause__
    found, link = None, error.__traceback__
    while link:
        if is_user_file(link.tb_frame.f_code.co_filename):
            place = place_at(link.tb_frame.f_code, link.tb_lasti, link.tb_lineno)
            found = {**place.as_json(), "function": function_name(link.tb_frame.f_code), "told": told}
        link = link.tb_next
    return found


# Values that were made when the files were imported


def _constants(files: list[str], listener: Recorder, nodes: list[Node]) -> None:
    """Tell the listener of what module and class bodies and default arguments hold."""
    modules = {module.__file__: module for _, module in _modules()}
    functions = [thing for thing in gc.get_objects() if type(thing) is FunctionType]
    by_file: dict[str, list[FunctionType]] = {}
    for function in functions:
        by_file.setdefault(function.__code__.co_filename, []).append(function)
    for file in files:
        tree = ast.parse(Path(file).read_text())
        if file in modules:
            _body(tree.body, vars(modules[file]), file, listener, nodes, "")
        defined = {(first_line(n), n.name): n.args for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        for function in by_file.get(file, ()):
            arguments = defined.get((function.__code__.co_firstlineno, function.__name__))
            if arguments:
                _defaults(function, arguments, file, listener, nodes)


def _body(body: list[ast.stmt], held: Any, file: str, listener: Recorder, nodes: list[Node], inside: str) -> None:
    for statement in body:
        if isinstance(statement, ast.ClassDef) and isinstance(held.get(statement.name), type):
            _body(statement.body, vars(held[statement.name]), file, listener, nodes, statement.name)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in held:
                value: Any = statement.value  # type: ignore[attr-defined]
                name = None if inside else target.id
                listener.constant(_node(value, file, target.id, nodes), file, name, held[target.id])


def _defaults(
    function: FunctionType, arguments: ast.arguments, file: str, listener: Recorder, nodes: list[Node]
) -> None:
    places = [*arguments.posonlyargs, *arguments.args]
    values = function.__defaults__ or ()
    if len(values) == len(arguments.defaults) and values:
        for name, at, value in zip(places[-len(values) :], arguments.defaults, values, strict=True):
            listener.default(_node(at, file, name.arg, nodes), function.__code__, name.arg, value)
    keywords = function.__kwdefaults__ or {}
    for name, expression in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if expression is not None and name.arg in keywords:
            listener.default(_node(expression, file, name.arg, nodes), function.__code__, name.arg, keywords[name.arg])


def _node(at: Any, file: str, name: str, nodes: list[Node]) -> int:
    nodes.append(Node(file, at.lineno, at.end_lineno, "Held", name, ""))
    return len(nodes) - 1
