"""A small machine for pickles of arrays: plain containers are built, arrays mapped, and nothing is ever executed.

It runs the opcodes that CPython writes for such content in protocols 2 to 5 (`pickletools` describes them) and refuses
the rest. Objects cost a budget that the file's size sets, so that a small file cannot fill the memory.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from align.record.pickle_arrays import ArrayBuilder, Box, Kind, Raw, RefusedPickle, Word, show

# Bytes of objects: so many for each byte of the file, on top of a start, up to a limit. Measured on CPython 3.11: in
# numpy's file a tensor of one element takes 55 bytes; here 1,500 (tracemalloc), and is charged 2,500: 46 times as much.
OBJECT_FACTOR, OBJECT_START, OBJECT_LIMIT = 64, 16 << 20, 1 << 30
# What one object is charged, its place in a list or dictionary included: sys.getsizeof gives 24 to 64 and 8 to 36.
COST = 100
# What a reference to an object that exists is charged.
CHEAP = 16
# One array may stand under several keys; together they may not make work out of proportion to the file.
LOGICAL_FACTOR, LOGICAL_START = 16, 64 << 20
MAX_DEPTH = 32
MAX_KEY = 4096
MAX_NAME = 256

_STOP = ord(".")
_TYPE_NAMES = {Raw: "bytes", Word: "a name", Kind: "a dtype"}


class PickleMachine:
    """Runs the one pickle that starts at `start` of a buffer and must end with it."""

    def __init__(self, buffer: Any, start: int = 0) -> None:
        self.data = memoryview(buffer).cast("B")
        self.size = len(self.data)
        self.position = start
        self.base = np.frombuffer(buffer, np.uint8) if self.size else np.empty(0, np.uint8)
        self.arrays = ArrayBuilder(self.base)
        self.budget = min(OBJECT_START + OBJECT_FACTOR * self.size, OBJECT_LIMIT)
        self.logical_left = max(LOGICAL_START, LOGICAL_FACTOR * self.size)
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self, boxed: bool) -> Any:
        """The value: dictionaries, lists, tuples, text, numbers, None, and arrays as read-only views of the buffer.

        `boxed` says that it stands in an array of one object, as `numpy.save` writes it. Raises RefusedPickle.
        """
        try:
            value = self._run()
        except RefusedPickle as error:
            raise RefusedPickle(f"{error} (at byte {self.position} of {self.size})") from None
        except IndexError:
            raise RefusedPickle(f"truncated or corrupt (at byte {self.position} of {self.size})") from None
        if boxed:
            if not isinstance(value, Box) or value.items is None or len(value.items) != 1:
                raise RefusedPickle("it holds no dictionary")
            value = value.items[0]
        return self._finish(value, "", 0)

    def _run(self) -> Any:
        while (code := self.data[self.position]) != _STOP:
            self.position += 1
            handler = _HANDLERS[code]
            if handler is None:
                raise RefusedPickle(f"the opcode {_opcode_name(code)} has no place in a pickle of arrays")
            handler(self)
        if self.position + 1 != self.size:
            raise RefusedPickle(f"{self.size - self.position - 1} bytes follow the end of the pickle")
        if len(self.stack) != 1 or self.marked:
            raise RefusedPickle("the pickle ends with more or less than one value")
        return self.stack[0]

    def take(self, count: int) -> int:
        """Position of the next `count` bytes, which are passed over."""
        start = self.position
        if count > self.size - start:
            raise RefusedPickle(f"truncated: {count} bytes are announced and {self.size - start} are left")
        self.position = start + count
        return start

    def integer(self, width: int, signed: bool = False) -> int:
        start = self.take(width)
        return int.from_bytes(self.data[start : start + width], "little", signed=signed)

    def charge(self, cost: int) -> None:
        self.budget -= cost
        if self.budget < 0:
            raise RefusedPickle("more objects than a file of this size can need")

    def push(self, value: Any, cost: int = COST) -> None:
        self.charge(cost)
        self.stack.append(value)

    def push_text(self, width: int) -> None:
        count = self.integer(width)
        start = self.take(count)
        self.push(self.arrays.text(self.data[start : start + count]))

    def push_bytes(self, width: int) -> None:
        count = self.integer(width)
        start = self.take(count)
        self.push(Raw(self.base[start : start + count]), 3 * COST)

    def push_tuple(self, items: list[Any]) -> None:
        self.push(tuple(items), COST + 8 * len(items))

    def push_tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.push_tuple(items[::-1])

    def mark(self) -> None:
        self.charge(COST)
        self.marked.append(self.stack)
        self.stack = []

    def pop_marked(self) -> list[Any]:
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def put(self, index: int) -> None:
        self.charge(COST)
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise RefusedPickle(f"it refers to object {index}, which it has not made")
        self.push(self.memo[index], CHEAP)

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise RefusedPickle("items for something that is no list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise RefusedPickle("items for something that is no dictionary")
        for index in range(0, len(items), 2):
            key = items[index]
            # Printable, because names go to terminals, logs and reports.
            if not isinstance(key, str) or len(key) > MAX_KEY or not key.isprintable():
                raise RefusedPickle(f"a key that is not a printable name of at most {MAX_KEY} characters: {show(key)}")
            if key in target:
                raise RefusedPickle(f"the key {show(key)} stands twice in one dictionary")
            target[key] = items[index + 1]

    def push_global(self) -> None:
        names = []
        for _ in range(2):
            start = self.position
            while self.data[self.take(1)] != ord("\n"):
                if self.position - start > MAX_NAME:
                    raise RefusedPickle(f"a name of more than {MAX_NAME} bytes")
            names.append(str(self.data[start : self.position - 1], "utf-8", "replace"))
        self.push(self.arrays.word(*names))

    def push_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(self.arrays.word(module, name))

    def reduce(self) -> None:
        arguments, word = self.stack.pop(), self.stack.pop()
        self.push(self.arrays.call(word, arguments), 3 * COST)

    def build(self) -> None:
        state = self.stack.pop()
        self.charge(3 * COST)
        self.arrays.build(self.stack[-1], state)

    def push_long(self) -> None:
        width = self.integer(1)
        if width > 8:
            raise RefusedPickle(f"an integer of {width} bytes")
        self.push(self.integer(width, signed=True))

    def push_float(self) -> None:
        self.push(struct.unpack_from(">d", self.data, self.take(8))[0])

    def protocol(self) -> None:
        version = self.integer(1)
        if not 2 <= version <= 5:
            raise RefusedPickle(f"protocol {version}; 2 to 5 are read")

    def frame(self) -> None:
        length = self.integer(8)
        if length > self.size - self.position:
            raise RefusedPickle(f"truncated: a frame of {length} bytes, of which {self.size - self.position} are there")

    def _finish(self, value: Any, name: str, depth: int) -> Any:
        """What stands on the stack, copied as a tree of plain values; `name` is its path of keys, for messages."""
        self.charge(COST)  # a container that many others hold is charged, and copied, once for each
        if depth > MAX_DEPTH:
            raise RefusedPickle(f"containers nested more than {MAX_DEPTH} deep, or in each other, at {show(name)}")
        if isinstance(value, dict):
            return {key: self._finish(item, f"{name}/{key}"[:200], depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self._finish(item, f"{name}/{n}"[:200], depth + 1) for n, item in enumerate(value)])
        if isinstance(value, Box):
            if value.array is None:
                raise RefusedPickle(f"{show(name)} is an array of objects (dtype object); only numbers are read")
            self.logical_left -= value.array.nbytes
            if self.logical_left < 0:
                raise RefusedPickle(f"arrays under so many keys that they outgrow the file, at {show(name)}")
            return value.array[()] if value.scalar else value.array
        if value is None or isinstance(value, str | bool | int | float):
            return value
        raise RefusedPickle(f"{show(name)} is no array or plain value, but {_TYPE_NAMES[type(value)]}")


def _opcode_name(code: int) -> str:
    import pickletools  # slow to import, and only this message needs it

    names = {opcode.code: opcode.name for opcode in pickletools.opcodes}
    return names.get(chr(code), f"{code:#x}")


_OPCODES: dict[int, Callable[[PickleMachine], None]] = {
    0x80: PickleMachine.protocol,
    0x95: PickleMachine.frame,
    ord("("): PickleMachine.mark,
    ord("N"): lambda m: m.push(None, CHEAP),
    0x88: lambda m: m.push(True, CHEAP),
    0x89: lambda m: m.push(False, CHEAP),
    ord("J"): lambda m: m.push(m.integer(4, signed=True)),
    ord("K"): lambda m: m.push(m.integer(1), CHEAP),
    ord("M"): lambda m: m.push(m.integer(2)),
    0x8A: PickleMachine.push_long,
    ord("G"): PickleMachine.push_float,
    ord("X"): lambda m: m.push_text(4),
    0x8C: lambda m: m.push_text(1),
    0x8D: lambda m: m.push_text(8),
    ord("B"): lambda m: m.push_bytes(4),
    ord("C"): lambda m: m.push_bytes(1),
    0x8E: lambda m: m.push_bytes(8),
    0x96: lambda m: m.push_bytes(8),  # a bytearray: how protocol 5 writes the bytes of an array
    ord(")"): lambda m: m.push((), CHEAP),
    ord("t"): lambda m: m.push_tuple(m.pop_marked()),
    0x85: lambda m: m.push_tuple_of(1),
    0x86: lambda m: m.push_tuple_of(2),
    0x87: lambda m: m.push_tuple_of(3),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.pop_marked()),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    ord("u"): lambda m: m.set_items(m.pop_marked()),
    ord("q"): lambda m: m.put(m.integer(1)),
    ord("r"): lambda m: m.put(m.integer(4)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("h"): lambda m: m.get(m.integer(1)),
    ord("j"): lambda m: m.get(m.integer(4)),
    ord("c"): PickleMachine.push_global,
    0x93: PickleMachine.push_stack_global,
    ord("R"): PickleMachine.reduce,
    ord("b"): PickleMachine.build,
}
_HANDLERS = [_OPCODES.get(code) for code in range(256)]
