"""Reading `--input`: `2,3,224,224`, `ids=2,128:int64<30000`, `mask=2,128:bool`, `batch.ids=...`, `x=@file.npy`."""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from align.case import Input
from align.errors import UsageError
from align.plan.inputs import shows_photographs

FORM = "[NAME=]SHAPE[:DTYPE[<N]] or [NAME=]@FILE.npy, as 2,3,224,224 or ids=2,128:int64<30000"
SPEC = re.compile(
    r"(?:(?P<argument>[A-Za-z_0-9][\w.]*)=)?"
    r"(?:@(?P<file>.+)|(?P<shape>\d+(?:,\d+)*)(?::(?P<dtype>\w+))?(?:<(?P<high>\d+))?)$"
)
INTEGERS = ("int64", "int32")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="SPEC",
        help=f"an input of the model, as often as needed: {FORM}",
    )


def read(specs: Iterable[str], folder: Path = Path(), first: int = 0) -> tuple[Input, ...]:
    """The inputs in their order; UsageError for what cannot be read, or filled, or is told twice.

    Files are taken from `folder`; `first` is the number of the first input.
    """
    found = tuple(_one(text, number, folder) for number, text in enumerate(specs, first))
    if not found:
        raise UsageError(f"--input: give every input of the model: {FORM}")
    names = [spec.name for spec in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--input: {twice} is given twice")
    return found


def _one(text: str, number: int, folder: Path) -> Input:
    match = SPEC.match(text)
    if match is None:
        raise UsageError(f"--input {text}: expected {FORM}")
    argument, file = match["argument"] or "", match["file"]
    name = argument or str(number)
    if file:
        path = (folder / file).resolve()
        return Input(name, _shape_of(path), "file", argument=argument, file=str(path))
    shape = tuple(int(size) for size in match["shape"].split(","))
    dtype = match["dtype"] or "float32"
    if 0 in shape:
        raise UsageError(f"--input {text}: an axis of size 0 leaves nothing to compare")
    if dtype in INTEGERS:
        if not match["high"] or not 1 <= int(match["high"]) <= np.iinfo(dtype).max:
            raise UsageError(f"--input {text}: say below which number they are, as in {dtype}<30000")
        return Input(name, shape, "integers", dtype, int(match["high"]), argument)
    if match["high"]:
        raise UsageError(f"--input {text}: only {' and '.join(INTEGERS)} have an upper end")
    if dtype == "bool":
        return Input(name, shape, "flags", dtype, argument=argument)
    if dtype != "float32":
        known = ", ".join(("float32", "bool", *INTEGERS))
        raise UsageError(f"--input {text}: type {dtype!r} is none of {known}; floating inputs follow --dtype")
    return Input(name, shape, "photographs" if shows_photographs(shape) else "normal", argument=argument)


def _shape_of(path: Path) -> tuple[int, ...]:
    try:
        return tuple(np.load(path, mmap_mode="r", allow_pickle=False).shape)
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:
        raise UsageError(f"--input @{path}: cannot read it: {error}; save one array with numpy.save") from None
