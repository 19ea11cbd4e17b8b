"""What makes a pair of the zoo agree, so that a difference is not only named but proven.

`changes.yaml` has changes of the port's own file, in the form of `align.mutate.patch`: `case` is a pattern of names,
and `why` says what differs. `agreeing.toml` has, under the same names, pairs that only have to be written otherwise;
`summary` says what differs. No text of an installed package is kept here: it is read, and changed, when a zoo runs.
"""

import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from align.case import Case
from align.cases import files
from align.errors import UsageError
from align.mutate.patch import Mutant, changed_text, read_catalogue

FOLDER = Path(__file__).parent
RELATIVE = re.compile(r"^(\s*from )(\.+)([\w.]*)( import )", re.MULTILINE)


@dataclass(frozen=True)
class Changes:
    """Changes of files, and pairs written otherwise by name."""

    patches: tuple[Mutant, ...] = ()
    written: Mapping[str, Case] = field(default_factory=dict)

    def told(self, case: Case) -> str:
        """What of the pair differs; empty where no change is known."""
        written = self._written(case)
        return "; ".join(patch.why for patch in self._of(case)) or (written.summary if written else "")

    def key(self, case: Case) -> str:
        """What an outcome depends on, as text."""
        return repr((self._of(case), self._written(case)))

    def applied(self, case: Case, folder: Path) -> Case | None:
        """The pair with its change, whose file is written into the folder; None where no change is known."""
        if patches := self._of(case):
            return changed(case, patches, folder)
        return self._written(case)

    def _of(self, case: Case) -> list[Mutant]:
        here = case.port.partition(":")[0]
        return [p for p in self.patches if _inside(p.module, here) and fnmatchcase(case.name, p.case)]

    def _written(self, case: Case) -> Case | None:
        found = self.written.get(case.name)
        return found if found and found.reference == case.reference else None


def shipped() -> Changes:
    return Changes(
        tuple(read_catalogue(FOLDER / "changes.yaml")),
        files.read(FOLDER / "agreeing.toml"),
    )


def changed(case: Case, patches: Iterable[Mutant], folder: Path) -> Case:
    """The case with its port from a copy of the port's file in which the patches are made, line by line as it was.

    UsageError where the file is not there, is not the one that the port's builder is in, or lacks a text to find.
    """
    patches = list(patches)
    module, _, name = case.port.partition(":")
    file = patches[0].file
    if any(patch.file != file for patch in patches) or not _inside(patches[0].module, module):
        raise UsageError(f"case {case.name}: its port is in {module}, its changes in {file}")
    text = source(file)
    for patch in patches:
        text = changed_text(patch, text)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"changed_{re.sub(r'[^0-9A-Za-z]+', '_', case.name)}.py"
    path.write_text(absolute(text, patches[0].module.rpartition(".")[0]))
    return replace(case, port=f"{path.resolve()}:{name}")


def _inside(module: str, port: str) -> bool:
    """Whether it is the module that a port's builder is named in, or one below, which may have defined the builder."""
    return module == port or module.startswith(f"{port}.")


def source(file: str) -> str:
    """The text of a file of an installed package, which is looked up and not imported."""
    package, *inside = PurePosixPath(file).parts
    found = importlib.util.find_spec(package)
    places = list(found.submodule_search_locations or ()) if found else []
    for place in places:
        path = Path(place, *inside)
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise UsageError(f"{file}: no such file of an installed package")


def absolute(text: str, package: str) -> str:
    """The text with its relative imports written out, as a file outside its package needs them; lines stay lines."""

    def written(match: re.Match[str]) -> str:
        start, dots, rest, end = match.groups()
        parts = package.split(".")[: len(package.split(".")) - len(dots) + 1]
        return f"{start}{'.'.join([*parts, *([rest] if rest else [])])}{end}"

    return RELATIVE.sub(written, text)
