"""The cases: the built-in ones by name, those that installed packages bring, and those of a user's files."""

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from align.case import Case
from align.cases import files, pit
from align.errors import UsageError

GROUP = "align.cases"  # entry points: each names a Case, or a list of them
CASES: dict[str, Case] = {case.name: case for case in pit.CASES}


def find(name: str) -> Case:
    """The case of that name, or of a file `file.toml:name`; UsageError names the nearest ones otherwise."""
    if files.is_file(name):
        return files.find(name)
    known = every()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`align cases` lists them"
    raise UsageError(f"unknown case {name!r}: {hint}")


@cache
def every() -> Mapping[str, Case]:
    """The built-in cases and those of installed packages; a built-in name stays what it is."""
    found: dict[str, Case] = {}
    for point in entry_points(group=GROUP):
        try:
            brought = files.collected([point.load()])
        except Exception as error:
            raise UsageError(f"entry point {point.value} of {GROUP}: {type(error).__name__}: {error}") from None
        found |= {case.name: files.completed(case, Path()) for case in brought}
    return found | CASES
