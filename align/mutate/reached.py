"""Which functions a changed file has changed: a step that enters none of them does what it did before.

This is proof as far as a step repeats itself: up to the first changed function that is entered, both files make the
interpreter do the same.
"""

from collections.abc import Collection
from types import CodeType
from typing import Any

# Where a function stands in its file, and in which, is of no effect; neither is how it is cached.
COMPARED = (
    "co_name",
    "co_qualname",
    "co_code",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_flags",
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_exceptiontable",
)


def changed_functions(before: str, after: str) -> set[str]:
    """Qualified names of the functions, class bodies or files (`<module>`) of which the code itself has changed.

    A function that is new changes what it stands in, and a text that is no Python the file.
    """
    try:
        return set(_changed(*(compile(text, "changed", "exec", dont_inherit=True) for text in (before, after))))
    except (SyntaxError, ValueError):
        return {"<module>"}


def touches(changed: Collection[str], entered: Collection[str] | None) -> bool:
    """Whether a run that entered these functions may have been another one; None is a run that was not seen whole."""
    return entered is None or not set(entered).isdisjoint(changed)


def _changed(before: CodeType, after: CodeType) -> list[str]:
    inner = [[part for part in code.co_consts if isinstance(part, CodeType)] for code in (before, after)]
    if _own(before) != _own(after) or len(inner[0]) != len(inner[1]):
        return [before.co_qualname]
    return [name for pair in zip(*inner, strict=True) for name in _changed(*pair)]


def _own(code: CodeType) -> list[Any]:
    """All that a code object does by itself; of those in it, their names and order."""
    constants = [part.co_qualname if isinstance(part, CodeType) else _exact(part) for part in code.co_consts]
    return [*(getattr(code, name) for name in COMPARED), constants]


def _exact(constant: Any) -> Any:
    """A constant as text that tells 1 from True, 1.0 and -0.0 from 0.0, inside tuples and frozen sets too."""
    if isinstance(constant, tuple):
        return [_exact(part) for part in constant]
    if isinstance(constant, frozenset):
        return sorted((_exact(part) for part in constant), key=str)
    return f"{type(constant).__name__} {constant!r}"
