"""A mutant: one known bug as an exact replacement of text, read from YAML, and a copy of the port that has it."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from align.case import STEPS
from align.errors import UsageError

REQUIRED = ("id", "file", "find", "replace")


@dataclass(frozen=True)
class Mutant:
    """One entry of a catalogue.

    `step`: the step that must be blamed. `file`: path inside the tree, its first part the port's package. `find`: exact
    text that occurs `count` times, all of them replaced. `expect`: what else the report must say (module, line, cause).
    `equivalent`: no bug after all, must stay green. `case`: where it is tried. `source`, `why`: where the bug was seen
    and what it does or, of an equivalent one, why it does nothing; for people.
    """

    id: str
    step: str
    file: str
    find: str
    replace: str
    count: int | Literal["all"] = 1
    expect: Mapping[str, Any] = field(default_factory=dict)
    equivalent: bool = False
    case: str = "pit_probe"
    source: str = ""
    why: str = ""

    @property
    def package(self) -> str:
        return PurePosixPath(self.file).parts[0]

    @property
    def module(self) -> str:
        """The import path of the changed file."""
        parts = PurePosixPath(self.file).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class Patched:
    """A folder that holds a changed copy of the port's package: to go first on the import path."""

    root: Path
    file: Path
    sha256: str  # of the changed file
    lines: tuple[tuple[int, int], ...] = ()  # first and last of each replaced text, counted from 1 in the changed file


def read_catalogue(path: Path) -> list[Mutant]:
    """The mutants of a YAML file, a list; UsageError names the file, the entry and what is wrong with it."""
    try:
        # safe_load builds plain lists, dictionaries and scalars only
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read it: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: expected a list of mutants, found {type(entries).__name__}")
    mutants = [_mutant(entry, f"{path}: entry {number}") for number, entry in enumerate(entries, 1)]
    seen: set[str] = set()
    for mutant in mutants:
        if mutant.id in seen:
            raise UsageError(f"{path}: two mutants are called {mutant.id!r}; results are kept by id")
        seen.add(mutant.id)
    return mutants


def _mutant(entry: object, where: str) -> Mutant:
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: expected a mapping, found {entry!r}")
    where = f"{where} ({entry.get('id', 'no id')})"
    if missing := [name for name in REQUIRED if name not in entry]:
        raise UsageError(f"{where}: lacks {', '.join(missing)}")
    known = [item.name for item in fields(Mutant)]
    for name in map(str, entry.keys() - known):  # notes of the catalogue's own are welcome, misspelt keys are not
        if near := get_close_matches(name, known, 1, cutoff=0.8):
            raise UsageError(f"{where}: unknown key {name}, did you mean {near[0]}? The keys are {', '.join(known)}")
    entry = {name: value for name, value in entry.items() if name in known}
    if "step" not in entry and not entry.get("equivalent"):
        raise UsageError(f"{where}: lacks step, the one that must be blamed")
    for name in (*REQUIRED, "step", "case", "source", "why"):
        if not isinstance(entry.get(name, ""), str):
            raise UsageError(f"{where}: {name} must be text, not {entry[name]!r}; quote it")
    for name, kind in (("expect", dict), ("equivalent", bool)):
        if name in entry and not isinstance(entry[name], kind):
            raise UsageError(f"{where}: {name} must be a {kind.__name__}, not {entry[name]!r}")
    mutant = Mutant(**{"step": "", **entry})
    if mutant.step not in STEPS and not (mutant.equivalent and not mutant.step):
        raise UsageError(f"{where}: unknown step {mutant.step!r}; the steps are {' '.join(STEPS)}")
    count = mutant.count
    if count != "all" and (type(count) is not int or count < 1):
        raise UsageError(f"{where}: count must be a positive number or all, not {count!r}")
    if not mutant.find or mutant.find == mutant.replace:
        raise UsageError(f"{where}: find must hold text, and replace other text: this changes nothing")
    inside = PurePosixPath(mutant.file)
    if inside.is_absolute() or ".." in inside.parts or len(inside.parts) < 2 or inside.suffix != ".py":
        raise UsageError(f"{where}: file {mutant.file!r} must be a .py file of a package inside the tree")
    return mutant


def changed_text(mutant: Mutant, text: str) -> str:
    """The file's text with the bug in it; UsageError unless `find` occurs as often as the mutant says."""
    occurs = text.count(mutant.find)
    if occurs == 0 or mutant.count not in ("all", occurs):
        raise UsageError(
            f"mutant {mutant.id}: {mutant.file} holds the text to find {occurs} times, not {mutant.count}: "
            f"{mutant.find!r}"
        )
    return text.replace(mutant.find, mutant.replace)


def patch(mutant: Mutant, tree: Path, root: Path) -> Patched:
    """Copy the port's package from `tree` into `root`, without bytecode, and put the bug in.

    UsageError if the file is not there or the text is not in it as often as the mutant says.
    """
    source = tree / mutant.file
    try:
        before = source.read_bytes().decode("utf-8")
        text = changed_text(mutant, before)
    except OSError as error:
        raise UsageError(f"mutant {mutant.id}: {source}: cannot read it: {error.strerror}") from None
    shutil.copytree(tree / mutant.package, root / mutant.package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    file = root / mutant.file
    changed = text.encode("utf-8")
    file.write_bytes(changed)
    return Patched(root, file, hashlib.sha256(changed).hexdigest(), replaced_lines(mutant, before))


def replaced_lines(mutant: Mutant, before: str) -> tuple[tuple[int, int], ...]:
    """First and last line of every replacement in the changed text, from 1; where text was only taken out, its line."""
    spans, line = [], 1
    for piece in before.split(mutant.find)[:-1]:
        first = line + piece.count("\n")
        line = first + mutant.replace.count("\n")
        spans.append((first, max(first, line - mutant.replace.endswith("\n"))))
    return tuple(spans)
