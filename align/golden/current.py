"""Whether a golden recording still speaks of what is here: the case, and the reference's sources."""

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from align import __version__
from align.case import Case
from align.errors import Incomparable
from align.golden.archive import Golden
from align.pipeline import Options

FOLDER = re.compile(r"^/(?:[^/:]+/)+(?=[^/:]+\.\w+)")  # of an absolute path to a file
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
    for file in changed_sources(golden, options.case):
        raise Incomparable(f"{golden.path}: {file} of the reference has changed since; {again}")


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def _changed(frozen: Case, here: Case) -> Iterator[tuple[str, object, object]]:
    theirs, ours = asdict(frozen), asdict(here)
    for name in theirs:
        if name not in TOLD and _plain(theirs[name]) != _plain(ours[name]):
            yield name, theirs[name], ours[name]


def _plain(value: object) -> object:
    """A list where JSON makes one of a tuple, and of a file its name alone: it may lie elsewhere on this machine."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return FOLDER.sub("", value) if isinstance(value, str) else value


def changed_sources(golden: Golden, case: Case) -> Iterator[Path]:
    """Source files of the reference that are here with another content; those that are not here tell nothing."""
    own = Path(case.reference.partition(":")[0])
    for module, told in sorted(golden.working.code.items()):
        name = Path(told["file"]).name
        path = own if own.name == name and own.is_file() else _file(module, name)
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
