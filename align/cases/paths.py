"""Import paths of functions and classes, so that a process of its own can build them."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align.errors import UsageError


def is_named(builder: Any) -> bool:
    """Whether it is a function or class, not a model or another object that happens to be callable."""
    return inspect.isclass(builder) or inspect.isroutine(builder)


def path_of(builder: str | Callable[..., Any]) -> str:
    """`package.module:name` of what lies in a package, else `file.py:name`; a path stays as it is.

    Raises UsageError for what has no name in a module.
    """
    if isinstance(builder, str):
        return builder
    name = getattr(builder, "__qualname__", "<")
    if "<" in name:
        what = name if name != "<" else repr(builder)
        raise UsageError(f"{what}: a builder must be a function or class of a module, not a lambda or inner function")
    try:
        file = Path(inspect.getfile(inspect.unwrap(builder))).resolve()
    except TypeError:  # built in, or of a compiled module
        return f"{builder.__module__}:{name}"
    inside = (file.parent / "__init__.py").is_file() or "site-packages" in file.parts
    return f"{builder.__module__}:{name}" if inside and builder.__module__ != "<run_path>" else f"{file}:{name}"
