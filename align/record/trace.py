"""The value trace: every tensor operation of a block of code, in order, with what it read, wrote and computed.

`Side.trace(sink, model, inputs=...)` makes one. The arrays go to the sink at once, under the names below; operations
and values are a `Trace`, which `write` leaves beside the store and `read` brings back, in any process.

    input/<path>                 what was given to the block, or to an outermost module      kind input
    parameter|buffer|attribute/<name>   a tensor of the model, reference layout, as first read   kind parameter, buffer
    op/<index>[/<k>]             an output of an operation; /<k> where it has several          kind activation
    gradient/<name>              a parameter's `.grad`, as first read after each backward      kind gradient
    op_grad/<index>[/<k>]        the whole gradient that reached that output, #k if again      kind gradient
    untraced/<n>                 read, but made by nothing above: an error of the trace        kind activation
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from align.errors import AlignError, UsageError

SUFFIX = ".trace.jsonl"
ORIGINS = ("operation", "input", "parameter", "buffer", "attribute", "gradient", "untraced")


class UntracedProducer(AlignError):
    """A tensor was read that no traced operation, input or parameter produced: the trace has a hole there."""

    exit_code = 3


@dataclass(frozen=True)
class Frame:
    """One of the user's stack frames; `line` is 1-based."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Operation:
    """One operation: the values it read and wrote (by number), its scalars, and the user's statement that ran it.

    `inputs` may name a value twice. `outputs` holds a value that the operation read where it returned that very tensor
    beside new ones; a tensor that it overwrote (`inplace`) has a new number. `stack` lists the user's frames from the
    statement outwards, the statement's own first. `module` is the innermost running module as `observe` labels it.
    `attributes` are the other arguments by position or keyword, with the framework's own name under `function`;
    `variables` the user's variables that hold the same, by the argument.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Mapping[str, Any]
    inplace: bool
    file: str
    line: int
    end_line: int
    code: str
    stack: tuple[Frame, ...]
    module: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """One tensor at one time. `name` is its array's in the store; `operation` made it, or None if it was there before.

    `gradient` says that a gradient may flow to it (its array, if one came, is `gradient_name`).
    """

    number: int
    origin: str
    name: str
    operation: int | None
    shape: tuple[int, ...]
    dtype: str
    gradient: bool = False

    @property
    def gradient_name(self) -> str:
        """Name of the array of the gradient that reached this output or input."""
        kind, _, rest = self.name.partition("/")
        return f"{kind}_grad/{rest}"


@dataclass(frozen=True)
class Untraced:
    """One hole: the operation that read the tensor, the value's number, and what is known of it."""

    operation: int
    value: int
    text: str


@dataclass
class Trace:
    """Operations in order of execution, and values by number: `values[n].number == n`."""

    side: str
    operations: list[Operation] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    holes: list[Untraced] = field(default_factory=list)

    def check(self) -> None:
        """UntracedProducer if there is a hole: what follows from a trace with holes may blame the wrong line."""
        if self.holes:
            more = f" (and {len(self.holes) - 1} more)" if len(self.holes) > 1 else ""
            raise UntracedProducer(f"{self.side} trace: untraced producer: {self.holes[0].text}{more}")

    def write(self, folder: Path, name: str) -> dict[str, str]:
        """Leave `<name>.trace.jsonl` in the folder; the answer is the file's hash by its name."""
        rows: list[dict[str, Any]] = [{"trace": 1, "side": self.side}]
        for key, items in (("value", self.values), ("operation", self.operations), ("hole", self.holes)):
            rows += [{key: asdict(item)} for item in items]
        payload = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path = folder / f"{name}{SUFFIX}"
        path.write_bytes(payload)
        return {path.name: blake3(payload).hexdigest()}


def read(folder: Path, name: str) -> Trace:
    """The trace that `Trace.write` left in the folder; UsageError if it is not there or not a trace."""
    path = folder / f"{name}{SUFFIX}"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if rows[0]["trace"] != 1:
            raise ValueError(f"format {rows[0]['trace']}")
        trace = Trace(rows[0]["side"])
        for row in rows[1:]:
            ((kind, item),) = row.items()
            if kind == "value":
                trace.values.append(Value(**{**item, "shape": tuple(item["shape"])}))
            elif kind == "operation":
                stack = tuple(Frame(**frame) for frame in item["stack"])
                item |= {"stack": stack, "inputs": tuple(item["inputs"]), "outputs": tuple(item["outputs"])}
                trace.operations.append(Operation(**item))
            else:
                trace.holes.append(Untraced(**item))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the trace: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise UsageError(f"{path}: not a value trace ({error!r}); record again") from None
    if [value.number for value in trace.values] != list(range(len(trace.values))):
        raise UsageError(f"{path}: values are missing; record again")
    return trace


# The frameworks' words for the same operation. What is not here keeps its framework's name.
_NEUTRAL = {
    "add": ("add", "radd", "iadd"),
    "subtract": ("sub", "rsub", "isub", "subtract"),
    "multiply": ("mul", "rmul", "imul", "multiply"),
    "divide": ("div", "rdiv", "idiv", "truediv", "rtruediv", "itruediv", "true_divide", "divide"),
    "floor_divide": ("floordiv", "rfloordiv", "ifloordiv"),
    "remainder": ("mod", "rmod", "imod", "fmod"),
    "power": ("pow", "rpow", "ipow", "elementwise_pow"),
    "matmul": ("matmul", "rmatmul", "imatmul", "bmm", "mm"),
    "addmm": ("baddbmm",),
    "less": ("lt", "less_than"),
    "less_equal": ("le",),
    "greater": ("gt", "greater_than"),
    "greater_equal": ("ge",),
    "equal": ("eq",),
    "not_equal": ("ne",),
    "transpose": ("permute", "swapaxes", "swapdims", "movedim", "t", "T", "mT"),
    "reshape": ("view", "unflatten", "flatten"),
    "concat": ("cat", "concatenate"),
    "split": ("chunk", "split_with_num", "tensor_split"),
    "getitem": ("_getitem_dygraph", "slice", "strided_slice", "narrow", "select"),
    "setitem": ("_setitem_dygraph",),
    "conv2d": ("depthwise_conv2d",),
    "cast": ("to", "type", "astype", "float", "double", "half", "bfloat16", "long", "int", "bool"),
    "cross_entropy": ("cross_entropy_loss", "cross_entropy_with_softmax"),
    "assign": ("copy",),
    "mean": ("mean_all",),
    "arange": ("range",),
    "to_tensor": ("tensor", "as_tensor", "from_numpy"),
    "full": ("full_like", "zeros", "ones", "zeros_like", "ones_like", "new_zeros", "new_ones", "new_full"),
}
_NAMES = {theirs: ours for ours, all_theirs in _NEUTRAL.items() for theirs in all_theirs}


def neutral_name(function: str) -> str:
    """The name both sides use: `__rmul__`, `mul_` and `multiply` are `multiply`."""
    bare = function.strip("_") or function
    return _NAMES.get(function) or _NAMES.get(bare) or bare


def plain_attributes(arguments: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Those arguments that say something in JSON: numbers, words, short lists of them, types and slices by name."""
    return {key: plain for key, value in arguments if (plain := _plain(value)) is not _SKIP}


def held_in(variables: Mapping[str, Any], settings: Mapping[str, Any], code: str) -> dict[str, str]:
    """By argument, a number or a list, the first variable that holds the same, of those that the statement names.

    Of a list (an index, say) that has one number in it, that may be the variable's.
    """
    found: dict[str, str] = {}
    variables = {name: variables[name] for name in _words(code) if name in variables}
    for key, value in settings.items():
        kinds = (list, tuple) if isinstance(value, list) else (type(value),)
        if not isinstance(value, (str, bool)) and value is not None:
            same = (name for name, other in variables.items() if type(other) in kinds and _plain(other) == value)
            name = next(same, None)
            numbers = [item for item in value if type(item) is int] if isinstance(value, list) else []
            if name is None and len(numbers) == 1:
                name = next((n for n, other in variables.items() if type(other) is int and other == numbers[0]), None)
            if name is not None:
                found[key] = name
    return found


@lru_cache(4096)
def _words(code: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(re.findall(r"\w+", code)))


_SKIP = object()
_MOST_ITEMS = 16  # longer lists are data, not settings


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        items = [_plain(item) for item in value]
        return items if len(items) <= _MOST_ITEMS and not any(item is _SKIP for item in items) else _SKIP
    if isinstance(value, (complex, slice)) or value is Ellipsis or "dtype" in type(value).__name__.lower():
        return str(value)
    return _SKIP
