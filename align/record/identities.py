"""Which value a tensor holds at this moment: tensors share memory, are written to, and addresses are used again."""

import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol


class Memory(NamedTuple):
    """Where a tensor lies: its storage (shared by all views), its first byte, the byte after its last, its layout."""

    storage: Hashable
    low: int
    high: int
    layout: Hashable


class Tensors(Protocol):
    """What is asked of a framework's tensors."""

    def version(self, tensor: Any) -> int:
        """Counts writes; views of one storage mostly share the count."""

    def memory(self, tensor: Any) -> Memory | None:
        """None for a tensor without elements or without an address of its own."""


class _Hold(NamedTuple):
    tensor: Callable[[], Any]  # weak: what is traced must not keep more alive than what is not
    version: int
    number: int
    time: int


class _Write(NamedTuple):
    memory: Memory
    version: int
    operation: int
    time: int


class Identities:
    """Remembers which tensor holds which value, and what has been written where."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._holds: dict[int, _Hold] = {}
        self._places: dict[Memory, _Hold] = {}
        self._writes: dict[Hashable, list[_Write]] = {}
        self._time = 0

    def hold(self, tensor: Any, number: int) -> None:
        """From now on the tensor holds this value."""
        hold = _Hold(weakref.ref(tensor), self._tensors.version(tensor), number, self._time)
        self._holds[id(tensor)] = hold
        if (memory := self._tensors.memory(tensor)) is not None:
            self._places[memory] = hold

    def wrote(self, tensor: Any, operation: int) -> None:
        """An operation has written to the tensor, and so to whatever shares that memory."""
        self._time += 1
        if (memory := self._tensors.memory(tensor)) is not None:
            write = _Write(memory, self._tensors.version(tensor), operation, self._time)
            self._writes.setdefault(memory.storage, []).append(write)

    def is_held(self, tensor: Any) -> bool:
        """Whether this very tensor, not just its memory, ever held a value."""
        hold = self._holds.get(id(tensor))
        return hold is not None and hold.tensor() is tensor

    def own(self, tensor: Any) -> int | None:
        """The value that this very tensor holds, if it has one and nothing has been written to it since."""
        hold = self._holds.get(id(tensor))
        if hold is None or hold.tensor() is not tensor or not self._is_current(hold, tensor):
            return None
        return hold.number

    def twin(self, tensor: Any) -> int | None:
        """The value of another, living tensor in the very same memory: a detached one, another wrapper of this one."""
        memory = self._tensors.memory(tensor)
        hold = self._places.get(memory) if memory else None
        if hold is None:
            return None
        other = hold.tensor()  # while it lives, its memory is not given to another
        if other is None or other is tensor or self._tensors.memory(other) != memory:
            return None
        return hold.number if self._is_current(hold, other) else None

    def writer(self, tensor: Any) -> int | None:
        """The operation that has last written to a held tensor's memory through another tensor, if one was traced."""
        writes = self._later_writes(self._holds[id(tensor)], tensor)
        return writes[-1].operation if writes else None

    def _is_current(self, hold: _Hold, tensor: Any) -> bool:
        version = self._tensors.version(tensor)
        if not self._writes:
            return version == hold.version
        if self._later_writes(hold, tensor):
            return False
        if version == hold.version:
            return True
        # A write beside it, to another part of the same storage, counts up the shared version as well.
        memory = self._tensors.memory(tensor)
        writes = self._writes.get(memory.storage) if memory else None
        return writes is not None and writes[-1].time > hold.time and writes[-1].version == version

    def _later_writes(self, hold: _Hold, tensor: Any) -> list[_Write]:
        """Writes since, to any of the bytes between the tensor's first and last."""
        memory = self._tensors.memory(tensor)
        writes = self._writes.get(memory.storage) if memory else None
        if memory is None or not writes or writes[-1].time <= hold.time:
            return []
        return [
            write
            for write in writes
            if write.time > hold.time and write.memory.low < memory.high and memory.low < write.memory.high
        ]
