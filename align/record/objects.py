"""What can be told of an object of Python's without changing it or using it up."""

from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from zlib import crc32

import numpy as np

from align.record.fingerprint import LARGE, Fingerprint, of_array
from align.sides import Side

MEMBERS = 4096  # of one container that are looked at
SCALARS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), slice)
CONTAINERS = (list, dict, set, tuple, str)
QUESTIONS = (isinstance, issubclass, hasattr, callable, len, id, type, range, zip, enumerate, float, int, str)
CODE = (ModuleType, FunctionType, BuiltinFunctionType, type, type(super))


def key_of(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def function_name(code: CodeType) -> str:
    return code.co_qualname.replace("<locals>.", "")


def attributes(value: Any) -> list[Any]:
    own = getattr(value, "__dict__", None)
    return [] if isinstance(value, CODE) or not isinstance(own, dict) else list(own.values())[:MEMBERS]


def of_names(value: Any) -> Fingerprint | None:
    """Of the path of a file, or of a container of texts, paths and integers in their order, however it is nested."""
    if isinstance(value, PurePath):
        return of_array(np.array(_checksum(value)))
    if not isinstance(value, (list, tuple, dict)):
        return None
    found: list[int] = []
    return of_array(np.array(found)) if _gather(value, found) and len(found) <= MEMBERS else None


def _gather(value: Any, found: list[int]) -> bool:
    """Append the checksums of texts and paths, and the integers; whether there are texts, and nothing else."""
    named = False
    for item in (*value, *value.values()) if isinstance(value, dict) else value:
        if isinstance(item, (str, PurePath)):
            found.append(_checksum(item))
            named = True
        elif type(item) is int and abs(item) < LARGE:
            found.append(item)
        elif isinstance(item, (list, tuple, dict)) and _gather(item, found):
            named = True
        else:
            return False
        if len(found) > MEMBERS:
            return False
    return named


def _checksum(text: str | PurePath) -> int:
    return crc32(str(text).encode())


def array_of(value: Any, side: Side) -> np.ndarray | None:
    """The numbers of a plain number, array, tensor or image, or of a sequence of plain numbers; else None."""
    if isinstance(value, int):
        return np.asarray(value if abs(value) < 2**63 else float(value))
    if isinstance(value, (float, complex, np.generic)):
        return np.asarray(value)
    if isinstance(value, np.ndarray):
        return value
    if side.is_tensor(value):
        return side.to_numpy(value)
    if type(value).__module__.partition(".")[0] == "PIL" and hasattr(value, "getbands"):
        return np.asarray(value)
    if isinstance(value, (tuple, list)) and value and all(type(item) in (int, float) for item in value):
        return np.array(value)
    return None


def is_method(value: Any) -> bool:
    """Whether this is a method of an object, in Python or not; functions of modules are none."""
    if isinstance(value, BuiltinFunctionType):
        return value.__self__ is not None and not isinstance(value.__self__, ModuleType)
    return isinstance(value, MethodType) or type(value).__name__ == "method-wrapper"


def is_plain(value: Any) -> bool:
    """Whether a call of this writes into no tensor: Python's own questions, and methods of its containers."""
    owner = getattr(value, "__self__", None)
    return type(owner) in CONTAINERS or any(value is asked for asked in QUESTIONS)


def items_of(value: Any) -> list[Any]:
    """The parts that a value is unpacked into; none where looking would use it up."""
    return list(value) if hasattr(value, "__len__") and hasattr(value, "__getitem__") else []


def weight_of(value: Any) -> int:
    """Bytes of an array; 0 of what is small beside arrays."""
    size = getattr(value, "nbytes", 0)
    if not isinstance(size, int) and hasattr(value, "element_size"):
        size = value.element_size() * value.size
    return size if isinstance(size, int) else 0
