"""How numpy and Paddle write arrays in a pickle: the names they mention, and what calling them means here.

No name is ever looked up: each is a word with one meaning, and every other name is refused. Arrays are views of the
file's bytes. Sources of the facts: numpy `ndarray.__reduce__`, `__setstate__`, `dtype.__reduce__` and
`_core.numeric._frombuffer` (protocol 5); `paddle/framework/io.py`; CPython's `pickle` for how protocol 2 writes bytes.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

# Kinds and sizes that numpy writes for booleans, integers, floats and complex numbers.
_NUMBER = re.compile(r"(b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32))\Z")
_NOT_NUMPYS = "an array that is not written as numpy writes it"
_NOT_PROTOCOL_2S = "bytes that are not written as protocol 2 writes them"
_LONGEST_SIDE = 1 << 62


class RefusedPickle(Exception):
    """The bytes are not a pickle of arrays and plain containers. The message says what was found, and where."""


class Word:
    """A name that such pickles mention. The machine knows what a call of it means; it is nothing else."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Raw:
    """Bytes: a one-dimensional uint8 view of the file, or of the copy that protocol 2 makes necessary."""

    __slots__ = ("view",)

    def __init__(self, view: np.ndarray) -> None:
        self.view = view


class Kind:
    """A dtype while it is built; `dtype` is None for numpy's object dtype."""

    __slots__ = ("built", "dtype")

    def __init__(self, dtype: np.dtype | None) -> None:
        self.dtype = dtype
        self.built = False


class Box:
    """An array while it is built: empty, then with `array`, or with `items` if its dtype is object."""

    __slots__ = ("array", "items", "scalar")

    def __init__(self, array: np.ndarray | None = None, scalar: bool = False) -> None:
        self.array = array
        self.scalar = scalar
        self.items: list[Any] | None = None


class ArrayBuilder:
    """Makes what such a pickle describes, as views of `base` (uint8).

    All arrays together may claim no more bytes than `base` has, so no bytes serve two of them: every writer gives each
    array its own. Bytes and text are copied at most four times the size of `base` in all: protocol 2 needs two.
    """

    def __init__(self, base: np.ndarray) -> None:
        self.base = base
        self.claims_left = base.size
        self.copies_left = 4 * base.size + (1 << 20)

    def word(self, module: Any, name: Any) -> Word:
        """The word for a name. RefusedPickle if such pickles do not mention it."""
        found = _WORDS.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if found is None:
            raise RefusedPickle(f"it asks for {show(module)}.{show(name)}, which has no place in a pickle of arrays")
        return Word(found)

    def text(self, content: memoryview) -> str:
        """UTF-8 text."""
        try:
            text = str(content, "utf-8")
        except UnicodeDecodeError:
            raise RefusedPickle("text that is not UTF-8") from None
        self._copied(sys.getsizeof(text))
        return text

    def call(self, word: Any, arguments: Any) -> Any:
        """What `word(*arguments)` means."""
        if not isinstance(word, Word) or not isinstance(arguments, tuple):
            raise RefusedPickle("a call of something that is not numpy's or Paddle's way to write arrays")
        meaning = _CALLS.get(word.name)
        if meaning is None:
            raise RefusedPickle(f"a call of {word.name}")
        return meaning(self, arguments)

    def build(self, target: Any, state: Any) -> None:
        """Give a dtype or an array its state."""
        if isinstance(target, Kind) and isinstance(state, tuple):
            self._build_kind(target, state)
        elif isinstance(target, Box) and isinstance(state, tuple):
            self._build_array(target, state)
        else:
            raise RefusedPickle("a state for something that is no array")

    def _build_kind(self, kind: Kind, state: tuple[Any, ...]) -> None:
        if kind.built or len(state) != 8 or state[0] != 3 or state[1] not in ("<", ">", "|"):
            raise RefusedPickle("a dtype that is not written as numpy writes it")
        if any(part is not None for part in state[2:5]):
            raise RefusedPickle("a dtype with fields or parts; only plain numbers are read")
        kind.built = True
        if kind.dtype is not None and state[1] != "|":
            kind.dtype = kind.dtype.newbyteorder(state[1])

    def _build_array(self, box: Box, state: tuple[Any, ...]) -> None:
        if box.array is not None or box.items is not None or len(state) != 5 or not isinstance(state[3], bool):
            raise RefusedPickle(_NOT_NUMPYS)
        _, shape, kind, fortran, content = state
        if isinstance(kind, Kind) and kind.dtype is None and isinstance(content, list):
            box.items = content  # judged at the end, where its name is known
        else:
            box.array = self._view(kind, shape, "F" if fortran else "C", content)

    def _view(self, kind: Any, shape: Any, order: Any, raw: Any) -> np.ndarray:
        if not isinstance(kind, Kind) or kind.dtype is None or not isinstance(raw, Raw) or not _are_counts(shape):
            raise RefusedPickle("an array without a dtype of numbers, a shape and its bytes")
        if _product(shape) * kind.dtype.itemsize != raw.view.size:
            raise RefusedPickle(f"an array of shape {_brief(shape)} and dtype {kind.dtype} with {raw.view.size} bytes")
        self.claims_left -= raw.view.size
        if self.claims_left < 0:
            raise RefusedPickle("the arrays claim more bytes than the file has")
        if kind.dtype == np.bool_ and raw.view.size and raw.view.max() > 1:
            raise RefusedPickle("booleans that are neither 0 nor 1")
        try:
            array = raw.view.view(kind.dtype).reshape(shape, order=order)
        except (ValueError, OverflowError):
            raise RefusedPickle(f"an array of shape {_brief(shape)}, which numpy cannot make") from None
        array.flags.writeable = False
        return array

    def _call_dtype(self, arguments: tuple[Any, ...]) -> Kind:
        spec = arguments[0] if len(arguments) == 3 else None
        if not isinstance(spec, str):
            raise RefusedPickle("a dtype that is not written as numpy writes it")
        if spec in ("O", "O4", "O8"):
            return Kind(None)
        if _NUMBER.match(spec) is None:
            raise RefusedPickle(
                f"an array of dtype {show(spec)}; booleans, integers, floats and complex numbers are read"
            )
        try:
            return Kind(np.dtype(spec))
        except TypeError:
            raise RefusedPickle(f"an array of dtype {spec}, which numpy has not on this machine") from None

    def _call_reconstruct(self, arguments: tuple[Any, ...]) -> Box:
        if len(arguments) != 3 or not isinstance(arguments[0], Word) or arguments[0].name != "ndarray":
            raise RefusedPickle("an array that is not a plain numpy array")
        if arguments[1] != (0,):  # so in all of numpy's files; the size comes with the state
            raise RefusedPickle("an array that is made with a size")
        return Box()

    def _call_scalar(self, arguments: tuple[Any, ...]) -> Box:
        if len(arguments) != 2:
            raise RefusedPickle("a scalar that is not written as numpy writes it")
        return Box(self._view(arguments[0], (), "C", arguments[1]), scalar=True)

    def _call_frombuffer(self, arguments: tuple[Any, ...]) -> Box:
        if len(arguments) not in (4, 5) or arguments[3] not in ("C", "F", "K"):
            raise RefusedPickle(_NOT_NUMPYS)
        raw, kind, shape, order = arguments[:4]
        array = self._view(kind, shape, "F" if order == "F" else "C", raw)
        axes = arguments[4] if len(arguments) == 5 else None
        if axes is not None:
            if not _are_counts(axes) or sorted(axes) != list(range(array.ndim)):
                raise RefusedPickle("axes that are no permutation")
            array = array.transpose(axes)
        return Box(array)

    def _call_encode(self, arguments: tuple[Any, ...]) -> Raw:
        if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
            raise RefusedPickle(_NOT_PROTOCOL_2S)
        self._copied(len(arguments[0]))
        try:
            return Raw(np.frombuffer(arguments[0].encode("latin1"), np.uint8))
        except UnicodeEncodeError:
            raise RefusedPickle(_NOT_PROTOCOL_2S) from None

    def _call_bytes(self, arguments: tuple[Any, ...]) -> Raw:
        if arguments:
            raise RefusedPickle(_NOT_PROTOCOL_2S)
        return Raw(self.base[:0])

    def _call_tuple(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(arguments) != 1 or not isinstance(arguments[0], tuple):
            raise RefusedPickle("a tensor that is not written as Paddle writes it")
        return arguments[0]

    def _call_ordered_dict(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if arguments:
            raise RefusedPickle("an OrderedDict that is not written as Python writes it")
        return {}

    def _copied(self, count: int) -> None:
        self.copies_left -= count
        if self.copies_left < 0:
            raise RefusedPickle("more text than a file of this size can need")


def show(value: Any) -> str:
    """A piece of text from the file, made safe for a message; the type of anything else."""
    return ascii(value[:80])[1:-1] if isinstance(value, str) else f"<{type(value).__name__}>"


def _are_counts(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(item) is int and 0 <= item < _LONGEST_SIDE for item in value)


def _product(shape: tuple[int, ...]) -> int:
    """Number of elements; stops once it is larger than any file, so that no number grows without end."""
    if 0 in shape:
        return 0
    count = 1
    for side in shape:
        count *= side
        if count > _LONGEST_SIDE:
            break
    return count


def _brief(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= 8 else f"{shape[:8]} and {len(shape) - 8} more sides"


# numpy 1 has numpy.core where numpy 2 has numpy._core; protocol 2 writes Python 2's __builtin__.
_WORDS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "_reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "_reconstruct",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy.core.numeric", "_frombuffer"): "_frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "_frombuffer",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    ("__builtin__", "tuple"): "tuple",
    ("builtins", "tuple"): "tuple",
    ("collections", "OrderedDict"): "OrderedDict",
}
_CALLS: dict[str, Callable[[ArrayBuilder, tuple[Any, ...]], Any]] = {
    "dtype": ArrayBuilder._call_dtype,
    "_reconstruct": ArrayBuilder._call_reconstruct,
    "scalar": ArrayBuilder._call_scalar,
    "_frombuffer": ArrayBuilder._call_frombuffer,
    "encode": ArrayBuilder._call_encode,  # bytes as text
    "bytes": ArrayBuilder._call_bytes,  # no bytes at all
    "tuple": ArrayBuilder._call_tuple,  # a tensor: (internal name, array)
    "OrderedDict": ArrayBuilder._call_ordered_dict,
}
