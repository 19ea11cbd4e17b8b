"""Cases of one's own: tables in a TOML file, or `Case(...)` in a Python file, named as `file.toml:name`.

    [[case]]
    name = "my_net"
    reference = "my_reference.py:Net(10)"    # or package.module:Net
    port = "my_port.py:Net(10)"
    inputs = ["2,3,64,64"]                   # as for --input

Every other field of `align.case.Case` may stand there too. Files, and import paths, are found beside the case's own.
"""

import json
import runpy
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from align.case import ALONE, NEEDS, STEPS, Case, Input, Loss, Training
from align.cases.inputs import read as read_inputs
from align.cases.paths import path_of
from align.errors import UsageError

SUFFIXES = (".toml", ".py")


def is_file(name: str) -> bool:
    """Whether the name of a case is a path to a file of cases."""
    return name.partition(":")[0].endswith(SUFFIXES)


def roots(name: str) -> tuple[Path, ...]:
    """Where import paths of a case are looked for beside the usual places: the folder of its file, if it has one."""
    return (Path(name.partition(":")[0]).resolve().parent,) if is_file(name) else ()


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
        given["loss"] = Loss(**given["loss"]) if given.get("loss") else None
        given["training"] = Training(**given["training"]) if given.get("training") else None
        for name in given.keys() & {"steps", "probes", "inputs"}:
            given[name] = tuple(given[name])
        return completed(Case(**given), folder, where)
    except (TypeError, AttributeError) as error:
        raise UsageError(f"{where}: {error}") from None


def _from_python(path: Path) -> list[Case]:
    try:
        found = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path}: it raised {type(error).__name__}: {error}") from None
    return [completed(case, path.parent) for case in collected(found.values())]


def collected(values: Iterable[Any]) -> list[Case]:
    """The cases among values, and in lists and tuples of them."""
    cases = []
    for value in values:
        several = value if isinstance(value, (list, tuple)) else [value]
        cases += [case for case in several if isinstance(case, Case) and case not in cases]
    return cases


def completed(case: Case, folder: Path, where: str = "") -> Case:
    """The case with builders as paths and inputs read, files beside `folder`; UsageError for what cannot be run.

    A function or class is known by the file, or the module of a package, that defines it.
    """
    where = where or f"case {case.name}"
    inputs = _inputs(case.inputs, folder, where)
    beside = {side: _beside(path_of(getattr(case, side)), folder) for side in ("reference", "port")}
    case = replace(case, reference=beside["reference"], port=beside["port"], inputs=inputs)
    try:
        json.dumps(asdict(case))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}; what it holds must be plain values, names are given as paths") from None
    if case.alone:
        steps = ALONE if case.steps == STEPS else case.steps
        return replace(case, steps=_known(steps, ALONE, f"{where}: without a loss"), pair=True)
    if case.classes < 2:
        raise UsageError(f"{where}: a case with a loss needs `classes`, how many numbers the model gives a sample")
    if case.training:
        trained = {side: _beside(path_of(getattr(case.training, side)), folder) for side in ("reference", "port")}
        case = replace(case, training=replace(case.training, reference=trained["reference"], port=trained["port"]))
    able = STEPS if case.training else tuple(step for step in STEPS if step != "train_align")
    steps = able if case.steps == STEPS else case.steps
    return replace(case, steps=_known(steps, able, where if case.training else f"{where}: without `training`"))


def _inputs(given: Iterable[Input | str], folder: Path, where: str) -> tuple[Input, ...]:
    try:
        told = [read_inputs([s], folder, number)[0] if isinstance(s, str) else s for number, s in enumerate(given)]
        if not told:
            read_inputs([])
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return tuple(spec if spec.name else replace(spec, name=str(number)) for number, spec in enumerate(told))


def _known(steps: tuple[str, ...], able: tuple[str, ...], where: str) -> tuple[str, ...]:
    if strange := [step for step in steps if step not in able]:
        raise UsageError(f"{where} there is no step {strange[0]!r}; there are {' '.join(able)}")
    for step, needed in NEEDS.items():
        if step in steps and needed not in steps:
            raise UsageError(f"{where} step {step!r} needs {needed!r}, too")
    return tuple(step for step in able if step in steps)


def _beside(path: str, folder: Path) -> str:
    file, colon, rest = path.partition(":")
    return f"{(folder / file).resolve()}{colon}{rest}" if file.endswith(".py") else path
