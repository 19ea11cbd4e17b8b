"""`--write-map FILE`: what was found to belong together, as a mapping file that `--map` reads back."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from align.compare.weights import WORDS
from align.record.naming import parts

Row = Mapping[str, Any]  # of a side's table of tensors: name, shape, kind


def write(path: Path | None, case: str, parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace the file; `parameters` are what the manifests of both sides say. Nothing without a path."""
    if path is not None:
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text(text(case, parameters["torch"], parameters["paddle"]))
        aside.replace(path)


def text(case: str, reference: Mapping[str, Any], port: Mapping[str, Any]) -> str:
    """The file: a line a pair, how it was found behind it; what was not paired as comments, with candidates."""
    lines = [
        f"# {case}: which tensor of the port is which of the reference's. Change what is wrong, read it with --map."
    ]
    if modules := port.get("modules"):
        lines += ["", "[modules]", *(f"{_quoted(theirs)} = {_quoted(own)}" for theirs, own in modules.items())]
    lines += ["", "[parameters]"]
    pairs, how = port["parameters"], port["matched_by"]
    place = {row["name"]: number for number, row in enumerate(reference["table"])}
    for theirs in sorted(pairs, key=lambda names: place.get(parts(names)[0], len(place))):
        lines.append(f"{_quoted(theirs)} = {_quoted(pairs[theirs])}    # {WORDS[how[theirs]]}")
    theirs_left, ours_left = (
        [row for row in told["table"] if row["name"] in port["unpaired"][side]]
        for side, told in (("torch", reference), ("paddle", port))
    )
    if theirs_left:
        lines += ["", "# The reference's without a counterpart. Put in the port's name and take the # away."]
        lines += [_unpaired(row, _of_shape(row, ours_left)) for row in theirs_left]
    if ours_left:
        lines += ["", "# Only in the port:"]
        lines += [f"# {_quoted(row['name'])}    {_shape(row)}, {row['kind']}" for row in ours_left]
    return "\n".join(lines) + "\n"


def _unpaired(row: Row, near: list[str]) -> str:
    told = f"# {_quoted(row['name'])} = {_quoted(near[0] if near else '')}    # {_shape(row)}"
    if not near:
        return f"{told}; none of this shape is free in the port"
    return told + "".join(f", or {_quoted(name)}" for name in near[1:])


def _of_shape(row: Row, free: Iterable[Row]) -> list[str]:
    return [other["name"] for other in free if list(other["shape"]) == list(row["shape"])]


def _shape(row: Row) -> str:
    return f"({', '.join(map(str, row['shape']))})"


def _quoted(name: str) -> str:
    """A TOML basic string, whose escapes are JSON's."""
    return json.dumps(name)
