"""Cases of one's own: tables in a TOML file, or `Case(...)` in a Python file, named as `file.toml:name`.

    [[case]]
    name = "my_net"
    reference = "my_reference.py:Net(10)"    # or package.module:Net
    port = "my_port.py:Net(10)"
    inputs = ["2,3,64,64"]                   # as for --input

Every other field of `align.case.Case` may stand there too. Files are found beside the case's own.
"""

import runpy
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from align.case import ALONE, Case, Loss, Training
from align.cases import inputs
from align.cases.paths import path_of
from align.errors import UsageError

SUFFIXES = (".toml", ".py")


def is_file(name: str) -> bool:
    """Whether the name of a case is a path to a file of cases."""
    return name.partition(":")[0].endswith(SUFFIXES)


def find(name: str) -> Case:
    """The case `file.toml:name` or `file.py:name`; the name may be left out where a file holds one."""
    file, _, wanted = name.partition(":")
    cases = read(Path(file))
    if not wanted and len(cases) == 1:
        return next(iter(cases.values()))
    if wanted not in cases:
        told = f"has no case {wanted!r}" if wanted else "holds several cases"
        raise UsageError(f"{file}: {told}; it has {', '.join(cases) or 'none'}")
    return cases[wanted]


def read(path: Path) -> dict[str, Case]:
    """The cases of a file by name. UsageError, naming the file and the case, for what is none."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file of cases")
    found = _from_toml(path) if path.suffix == ".toml" else _from_python(path)
    cases: dict[str, Case] = {}
    for case in found:
        if case.name in cases:
            raise UsageError(f"{path}: two cases are called {case.name!r}")
        cases[case.name] = case
    return cases


def _from_toml(path: Path) -> list[Case]:
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot read it as TOML: {error}") from None
    tables = content.pop("case", [])
    if content or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: expected only [[case]] tables, found {', '.join(content) or 'another form'}")
    return [from_table(table, f"{path}: case {number}", path.parent) for number, table in enumerate(tables, 1)]


def from_table(table: Mapping[str, Any], where: str, folder: Path) -> Case:
    """The case of one table, whose files lie beside `folder`. Without a `loss` the models stand alone."""
    known = {field.name for field in fields(Case)}
    if lacking := [name for name in ("name", "reference", "port", "inputs") if name not in table]:
        raise UsageError(f"{where}: lacks {', '.join(lacking)}")
    if strange := sorted(table.keys() - known):
        raise UsageError(f"{where}: {strange[0]!r} is no field of a case; known: {', '.join(sorted(known))}")
    given = dict(table)
    try:
        given["inputs"] = inputs.read(given["inputs"], folder)
        given["loss"] = Loss(**given["loss"]) if given.get("loss") else None
        given["training"] = Training(**given["training"]) if given.get("training") else None
        if given["loss"] is None:
            given = {"steps": ALONE, "pair": True, "build": {}} | given
        given["steps"] = tuple(given.get("steps", Case.steps))
        for side in ("reference", "port"):
            given[side] = _beside(given[side], folder)
        return Case(**{"build": {}, **given})
    except (TypeError, AttributeError) as error:
        raise UsageError(f"{where}: {error}") from None


def _from_python(path: Path) -> list[Case]:
    try:
        found = runpy.run_path(str(path))
    except Exception as error:
        raise UsageError(f"{path}: it raised {type(error).__name__}: {error}") from None
    return [completed(case, path.parent) for case in collected(found.values())]


def collected(values: Iterable[Any]) -> list[Case]:
    """The cases among values, and in lists and tuples of them."""
    cases = []
    for value in values:
        several = value if isinstance(value, (list, tuple)) else [value]
        cases += [case for case in several if isinstance(case, Case) and case not in cases]
    return cases


def completed(case: Case, folder: Path) -> Case:
    """The case with its builders as paths: a function or class is known by the file that defines it."""
    beside = {side: _beside(path_of(getattr(case, side)), folder) for side in ("reference", "port")}
    told = tuple(inputs.read([spec], folder)[0] if isinstance(spec, str) else spec for spec in case.inputs)
    named = tuple(spec if spec.name else replace(spec, name=str(number)) for number, spec in enumerate(told))
    case = replace(case, reference=beside["reference"], port=beside["port"], inputs=named)
    return replace(case, steps=tuple(step for step in case.steps if step in ALONE), pair=True) if case.alone else case


def _beside(path: str, folder: Path) -> str:
    file, colon, rest = path.partition(":")
    return f"{(folder / file).resolve()}{colon}{rest}" if file.endswith(".py") else path
