"""From the path of a builder to a callable: `package.module:name`, `folder/port.py:Net`, with arguments in brackets.

torchvision.models:resnet50(num_classes=10)      a function or class, called with these literals
torch.nn.functional:interpolate(..., scale_factor=2)      no builder: itself the model; ... stands for the inputs
"""

import ast
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from align.case import package_of
from align.errors import UsageError

HINT = "a function that is itself the model is written with its inputs as dots: package.module:name(...)"


def resolve(path: str) -> Any:
    """The object at a path; with arguments in brackets, a callable that is given them.

    UsageError says which part is not there. A path whose arguments begin with `...` gives a `Function`.
    """
    name, arguments = _split(path)
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise UsageError(f"{path}: expected package.module:name or file.py:name")
    found: Any = _from_file(Path(module_name)) if module_name.endswith(".py") else _imported(module_name, path)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = ", ".join(difflib.get_close_matches(part, [n for n in dir(found) if n[0] != "_"], 3)) or "none"
            raise UsageError(f"{path}: {module_name} has no {attribute!r}; near: {near}")
        found = getattr(found, part)
    if arguments is None:
        return found
    given, named = arguments
    if given[:1] == [...]:
        return Function(partial(_after, found, given[1:], named), f"{name}(...)")
    return partial(found, *given, **named)


class Function:
    """A function that is itself the model: it takes the model's inputs."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        self.call, self.name = call, name

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        return self.call(*inputs, **keywords)


def _after(function: Callable[..., Any], given: list[Any], named: dict[str, Any], *inputs: Any, **more: Any) -> Any:
    return function(*inputs, *given, **{**named, **more})


def _split(path: str) -> tuple[str, tuple[list[Any], dict[str, Any]] | None]:
    name, bracket, _ = path.partition("(")
    if not bracket:
        return path, None
    try:
        call = ast.parse("f" + path[len(name) :], mode="eval").body
        assert isinstance(call, ast.Call)
        given = [ast.literal_eval(argument) for argument in call.args]
        named = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UsageError(f"{path}: what stands in brackets must be literals, as in name(10, bias=False)") from None
    return name, (given, named)


def _imported(module: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: no module {error.name!r}; check the import path and the working directory") from None


def _from_file(path: Path) -> ModuleType:
    """A file as a module of its own name; what it imports may lie beside it."""
    name, file = package_of(str(path)), path.resolve()
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    if not file.is_file():
        raise UsageError(f"{path}: no such file; give a Python file as folder/port.py:Net")
    if loaded is not None:
        raise UsageError(
            f"{path}: a module named {name!r} is loaded from {loaded.__file__}; give the file another name"
        )
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[name]
        raise UsageError(f"{path}: it imports {error.name!r}, which is not there") from None
    except BaseException:
        del sys.modules[name]
        raise
    return module
