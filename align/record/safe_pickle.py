"""Reads the pickles that other projects keep arrays in, without running them, and writes reprod_log's format.

Files come from strangers: numpy's and Paddle's own readers run whatever a pickle asks for. Here arrays and plain
containers are read and anything else is refused, and arrays are mapped from the file, not loaded.
"""

import contextlib
import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import EnvironmentFault, UsageError
from align.record.pickle_arrays import RefusedPickle
from align.record.pickle_machine import PickleMachine

# NEP 1; written by numpy.lib.format. Only an array of no dimensions and one object, the dictionary, is admitted.
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(rb"\{'descr': '(.{1,64})', 'fortran_order': (?:False|True), 'shape': \((.{0,64})\), \} *\n\Z")
_LONGEST_HEADER = 4096
# `paddle.save` adds the table of its tensors' internal names under this key, and splits tensors in protocols 2 and 3.
_NAME_TABLE = "StructuredToParameterName@@"
_SLICES = "UnpackBigParamInfor@@"  # sic


def read_dictionary(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The dictionary in an `.npy` file as reprod_log writes it (`numpy.save` of a dict).

    Values are arrays (read-only, of any layout, mapped from the file), numpy scalars, plain Python values, and
    dictionaries, lists and tuples of such. Nothing in the file is executed, and what is allocated is bounded by the
    file's size. The file must not be changed while its arrays are in use. Raises UsageError.
    """
    return _read(path, read_dictionary_bytes)


def read_dictionary_bytes(buffer: Any) -> dict[str, Any]:
    """`read_dictionary` of a file's content: bytes, or anything with a buffer, which the arrays are views of.

    Raises UsageError, whatever the bytes.
    """
    try:
        start = _end_of_header(memoryview(buffer).cast("B"))
        return _dictionary(PickleMachine(buffer, start), boxed=True)
    except RefusedPickle as error:
        raise UsageError(
            f"{error}. Nothing in it was run. A dictionary of numeric arrays, as ReprodLogger.save writes it, is needed"
        ) from error


def read_pdparams(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """{name: array} of a state dict that `paddle.save` wrote; arrays are read-only views of the mapped file.

    bfloat16 is uint16 here, as Paddle writes it (it has no uint16 of its own). Raises UsageError, also where the state
    dict is nested in a checkpoint.
    """
    return _read(path, read_pdparams_bytes)


def read_pdparams_bytes(buffer: Any) -> dict[str, np.ndarray]:
    """`read_pdparams` of a file's content. Raises UsageError, whatever the bytes."""
    try:
        content = _dictionary(PickleMachine(buffer), boxed=False)
        if _SLICES in content:
            raise RefusedPickle("a tensor is split in slices; save it again with paddle.save(..., protocol=4)")
        content.pop(_NAME_TABLE, None)
        for name, value in content.items():
            if (
                isinstance(value, tuple) and len(value) == 2
            ):  # (internal name, array): a tensor that was not a parameter
                content[name] = value[1]
            if not isinstance(content[name], np.ndarray):
                raise RefusedPickle(
                    f"{name!a} is not a tensor, but a {type(value).__name__}; save the state dict alone"
                )
        return content
    except RefusedPickle as error:
        raise UsageError(
            f"{error}. Nothing in it was run. A state dict, as paddle.save writes it, is needed"
        ) from error


def save_dictionary(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write {key: array}, or nested dictionaries of arrays, byte for byte as `ReprodLogger.save` does.

    Needs no reprod_log, whose package imports Paddle. The folder is made if it is missing; the file is written aside
    and moved into place. Raises ValueError for what is not a numeric array, EnvironmentFault if it cannot be written.
    """
    path = Path(path)
    plain = _only_arrays(arrays, "")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            np.save(file, plain, allow_pickle=True)  # type: ignore[arg-type]  # a dict becomes an array of one object
        os.replace(aside, path)
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: could not be written: {error.strerror}; free space or choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _only_arrays(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, item in value.items():
        where = f"{name}/{key}" if name else key
        if isinstance(item, Mapping):
            plain[key] = _only_arrays(item, where)
        elif isinstance(item, np.ndarray) and item.dtype.kind in "biufc":
            plain[key] = np.asarray(item)
        else:
            raise ValueError(f"{where} is no numeric array, but {getattr(item, 'dtype', type(item).__name__)}")
    return plain


def _read(path: str | os.PathLike[str], parse: Any) -> Any:
    path = Path(path)
    try:
        if not path.is_file():  # also because opening a pipe would wait for ever
            raise UsageError(f"{path}: there is no such file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UsageError(f"{path}: the file is empty; write it again")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        return parse(mapped)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _end_of_header(data: memoryview) -> int:
    """Where the pickle starts in an `.npy` file that holds one object."""
    if bytes(data[:6]) != _MAGIC or len(data) < 12:
        raise RefusedPickle("this is no .npy file, or it is truncated")
    width = {1: 2, 2: 4, 3: 4}.get(data[6])
    if width is None or data[7] != 0:
        raise RefusedPickle(f"version {data[6]}.{data[7]} of the .npy format is not known")
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _LONGEST_HEADER or start > len(data):
        raise RefusedPickle(f"the .npy header is truncated or corrupt: {length} bytes long")
    header = _HEADER.match(bytes(data[8 + width : start]))
    if header is None:
        raise RefusedPickle("the .npy header is corrupt")
    if header[1] != b"|O" or header[2] != b"":
        raise RefusedPickle(f"this .npy file holds one plain array (dtype {ascii(header[1])[2:-1]}), not a dictionary")
    return start


def _dictionary(machine: PickleMachine, boxed: bool) -> dict[str, Any]:
    value = machine.load(boxed)
    if not isinstance(value, dict):
        raise RefusedPickle(f"it holds no dictionary, but a {type(value).__name__}")
    return value
