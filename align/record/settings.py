"""What each module of a model was set to: its attributes that are numbers, words or short lists of them."""

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

from align.record.fingerprint import of_array
from align.record.source import is_user_file, parsed
from align.sides import Side

_PLAIN = (bool, int, float, str, type(None))
_MOST = 16  # items of a list; longer ones are data
# The frameworks' own bookkeeping.
_BOOKKEEPING = {"name", "_name", "_full_name", "_dtype", "_built", "_init_in_dynamic_mode"}


def settings(modules: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By dotted path: class, its framework ancestor if it has one, attributes, shapes of its own parameters.

    `definitions` says where a user's class assigns each attribute: file, lines, text, and whether the value is an
    argument of the constructor as it is, so that the constructor's caller has chosen it.
    """
    return {path: _of(module) for path, module in modules.items()}


def held(side: Side, modules: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By dotted path, the tensors beside parameters that a user's module keeps: its buffers, and plain attributes."""
    found = {}
    for path, module in modules.items():
        if _is_users(type(module)):
            kept = {**vars(module), **getattr(module, "_buffers", {})}
            found[path] = {name: value for name, value in kept.items() if side.is_tensor(value)}
    return {path: tensors for path, tensors in found.items() if tensors}


def held_prints(side: Side, modules: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same as fingerprints in JSON."""
    found = {}
    for path, tensors in held(side, modules).items():
        prints = {name: of_array(side.to_numpy(tensor)) for name, tensor in tensors.items()}
        found[path] = {name: known.as_json() for name, known in prints.items() if known}
    return found


def _of(module: Any) -> dict[str, Any]:
    attributes = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(module).items()
        if name not in _BOOKKEEPING and not name.startswith("_align_") and _is_plain(value)
    }
    own, cls = getattr(module, "_parameters", {}), cast(Any, type(module))
    kind = next((c.__name__ for c in type(module).__mro__ if not _is_users(c)), "object")
    return {
        "class": type(module).__name__,
        "framework": kind if kind not in ("Module", "Layer", "object") else None,
        "attributes": attributes,
        "parameters": {name: list(tensor.shape) for name, tensor in own.items() if tensor is not None},
        "definitions": _definitions(cls),
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) <= _MOST and all(isinstance(item, _PLAIN) for item in value)
    return isinstance(value, _PLAIN)


def _is_users(kind: type) -> bool:
    try:
        return is_user_file(inspect.getfile(kind))
    except (TypeError, OSError):
        return False


@cache
def _definitions(kind: type) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for owner in reversed([c for c in kind.__mro__ if _is_users(c)]):
        file = inspect.getfile(owner)
        for name, statement, given in _assignments(file, owner.__name__):
            first, last = statement
            code = "\n".join(parsed(file)[1][first - 1 : last]).strip()
            found[name] = {"file": file, "line": first, "end_line": last, "code": code, "given": given}
    return found


def _assignments(file: str, name: str) -> Iterator[tuple[str, tuple[int, int], bool]]:
    """(attribute, lines, is the value an argument as it is) of every `self.x = ...` of the classes of this name."""
    for kind in (n for n in ast.walk(parsed(file)[0]) if isinstance(n, ast.ClassDef) and n.name == name):
        for function in (n for n in kind.body if isinstance(n, ast.FunctionDef)):
            arguments = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
            for node in (n for n in ast.walk(function) if isinstance(n, (ast.Assign, ast.AnnAssign))):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == "self":
                        given = isinstance(node.value, ast.Name) and node.value.id in arguments
                        yield target.attr, (node.lineno, node.end_lineno or node.lineno), given


@contextmanager
def treated(modules: Mapping[str, Any], treatments: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """In this block the named modules have these attributes.

    A treatment is `{"module": path, "attributes": {name: value}, "attached": ...}`, see `align.diagnose.cause`.
    """
    before: list[tuple[Any, str, Any]] = []
    try:
        for treatment in treatments:
            module = modules[treatment["module"]]
            for name, value in treatment["attributes"].items():
                held = vars(module).get(name)
                before.append((module, name, held))
                setattr(module, name, tuple(value) if isinstance(held, tuple) else value)
        yield
    finally:
        for module, name, held in reversed(before):
            setattr(module, name, held)
