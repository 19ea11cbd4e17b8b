"""Whether a golden recording still speaks of what is here: the case, and the reference's sources."""

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from align import __version__
from align.case import Case
from align.errors import Incomparable
from align.golden.archive import Golden
from align.pipeline import Options

TOLD = ("summary", "mapping")  # fields of a case that say nothing about what the reference computes


def check(golden: Golden, options: Options) -> None:
    """Raise Incomparable, naming what has changed, unless the port can be judged by this file as things are now."""
    again = f"freeze it again: align freeze --case {golden.case.name} --out {golden.path}"
    frozen, here = golden.head["align"], __version__
    if _series(frozen) != _series(here):
        raise Incomparable(f"{golden.path}: frozen by align {frozen}, this is {here}; {again}")
    if (dtype := golden.working.dtype) != options.dtype:
        raise Incomparable(f"{golden.path}: frozen in {dtype}, asked for is {options.dtype}; run with --dtype {dtype}")
    case = golden.case.name
    for name, theirs, ours in _changed(golden.case, options.case):
        raise Incomparable(f"{golden.path}: case {case} was frozen with {name} {theirs}, now has {ours}; {again}")
    for file in changed_sources(golden):
        raise Incomparable(f"{golden.path}: {file} of the reference has changed since; {again}")


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def _changed(frozen: Case, here: Case) -> Iterator[tuple[str, object, object]]:
    for field in fields(Case):
        theirs, ours = getattr(frozen, field.name), getattr(here, field.name)
        if field.name not in TOLD and _plain(theirs) != _plain(ours):
            yield field.name, theirs, ours


def _plain(value: object) -> object:
    """A list where JSON makes one of a tuple."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def changed_sources(golden: Golden) -> Iterator[Path]:
    """Source files of the reference that are here with another content; those that are not here tell nothing."""
    for module, told in sorted(golden.working.code.items()):
        path = _file(module, Path(told["file"]).name)
        if path and hashlib.sha256(path.read_bytes()).hexdigest() != told["sha256"]:
            yield path


def _file(module: str, name: str) -> Path | None:
    """Where a module's file would be, found without importing anything: its package may need a framework."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in spec.submodule_search_locations or () if spec else ():
        inside = rest if name == "__init__.py" else rest[:-1]
        path = Path(folder, *inside, name)
        if path.is_file():
            return path
    return None
