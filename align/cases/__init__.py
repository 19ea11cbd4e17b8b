"""The built-in cases, by name."""

import difflib

from align.case import Case
from align.cases import pit
from align.errors import UsageError

CASES: dict[str, Case] = {case.name: case for case in pit.CASES}


def find(name: str) -> Case:
    """The case of that name; UsageError names the nearest ones otherwise."""
    if name in CASES:
        return CASES[name]
    near = difflib.get_close_matches(name, CASES, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`align cases` lists them"
    raise UsageError(f"unknown case {name!r}: {hint}")
