"""Tensors on disk: one `<step>.tensors` file of raw bytes and one `<step>.index.jsonl` that says what lies where.

A writer appends, so a recording streams to disk whatever its size; a reader maps the file, so nothing is loaded that is
not looked at. A tensor with a second name is written once. Nothing here is ever executed on reading: the index is JSON,
and an entry that points outside its file is refused.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
from blake3 import blake3

from align.errors import AlignError, UsageError

ALIGNMENT = 64  # bytes: a cache line, so that mapped arrays are aligned for any dtype
KINDS = ("input", "output", "activation", "gradient", "parameter", "buffer", "state", "curve", "metric", "statistic")
AHEAD = 1 << 30  # bytes that may wait for the writing thread
BFLOAT16 = "bfloat16"  # numpy has no such type: stored as its 16 bits, read back as float32
NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
DTYPES = {**{name: np.dtype(name) for name in NUMBERS.split()}, BFLOAT16: np.dtype("uint16")}
DIMENSIONS, LARGEST = 64, 2**62  # numpy allows as many dimensions, and twice as many bytes


@dataclass(frozen=True)
class Entry:
    """One recorded tensor: its name, kind, dtype name, shape and place in the file."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    headline: bool = False
    facts: Mapping[str, Any] | None = None
    stored: bool = True  # false where only a summary was kept


def store_files(name: str) -> tuple[str, str]:
    """File names of a store: its bytes, and its index."""
    return f"{name}.tensors", f"{name}.index.jsonl"


class Overwritten(AlignError):
    """A tensor that was recorded without a copy changed before its bytes were written; record with copies."""


class _Waiting(Queue[Any]):
    """What waits to be written, `maxsize` in bytes: whoever puts waits while there are that many, and no less."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._bytes = 0

    def _qsize(self) -> int:
        return self._bytes + len(self.queue)  # what has no bytes is something to get, too

    def _put(self, item: Any) -> None:
        super()._put(item)
        self._bytes += item[1].nbytes if item else 0

    def _get(self) -> Any:
        item = super()._get()
        self._bytes -= item[1].nbytes if item else 0
        return item


class StoreWriter:
    """Appends tensors to `<folder>/<name>.tensors`; `close` writes the index. Use as a context manager.

    Hashing and writing happen in a thread of their own, so that they overlap with what the framework computes; a caller
    more than `ahead` bytes ahead waits. Left by an exception, what still waits is dropped.
    """

    def __init__(self, folder: Path, name: str, ahead: int = AHEAD) -> None:
        self._data_path, self._index_path = (folder / file for file in store_files(name))
        self._file = self._data_path.open("wb")
        self._position = 0
        self._file_hash = blake3()
        self._entries: dict[str, Entry | tuple[str, str]] = {}
        self._waiting = _Waiting(ahead)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self._error = self._error or error
            with suppress(OSError):  # a full disk must not hide what went wrong first
                self._stop()
            self._forget()

    def add(
        self,
        name: str,
        array: np.ndarray,
        kind: str,
        *,
        bfloat16: bool = False,
        headline: bool = False,
        facts: Mapping[str, Any] | None = None,
        unchanged: Callable[[], bool] | None = None,
    ) -> None:
        """Append one array (any shape and byte order) under a name not used yet; it must not be changed afterwards.

        Where it is a view of memory that others may write to, `unchanged` is asked once the bytes are on their way, and
        Overwritten comes from a later call if they may be wrong. `bfloat16`: a uint16 array holds bfloat16 bits. A
        `headline` array also goes into the step's reprod_log file, under the same name.
        """
        self._check_new(name)
        if kind not in KINDS:
            raise ValueError(f"{name}: kind {kind!r} is not one of {', '.join(KINDS)}")
        dtype = BFLOAT16 if bfloat16 else array.dtype.name
        if DTYPES.get(dtype) != array.dtype.newbyteorder("="):
            raise ValueError(f"{name}: an array of {array.dtype} cannot be recorded; only numbers and booleans")
        if self._error:
            raise self._error
        entry = Entry(name, kind, dtype, array.shape, 0, array.nbytes, headline, facts)
        self._entries[name] = entry
        self._waiting.put((entry, array, unchanged))

    def describe(self, entry: Entry) -> None:
        """Put an entry into the index without its bytes."""
        self._check_new(entry.name)
        self._entries[entry.name] = entry

    def alias(self, name: str, existing: str, kind: str) -> None:
        """Record that `name` is the very tensor recorded as `existing`; nothing is written again."""
        self._check_new(name)
        self._entries[name] = (existing, kind)

    def close(self) -> dict[str, str]:
        """Wait for the thread, flush both files; the answer is the hash of each, by file name."""
        self._stop()
        if error := self._forget():
            try:
                raise error
            finally:
                del error  # it holds this frame
        resolved: dict[str, Entry] = {}
        for name, entry in self._entries.items():
            if isinstance(entry, tuple):
                existing, kind = entry
                facts = {"same_as": existing}
                entry = replace(resolved[existing], name=name, kind=kind, headline=False, facts=facts)
            resolved[name] = entry
        lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in resolved.values()).encode()
        self._index_path.write_bytes(lines)
        self.hashes = {
            self._data_path.name: self._file_hash.hexdigest(),
            self._index_path.name: blake3(lines).hexdigest(),
        }
        return self.hashes

    def _check_new(self, name: str) -> None:
        if name in self._entries:
            raise ValueError(f"{self._index_path.name}: tensor {name!r} is recorded twice")

    def _forget(self) -> BaseException | None:
        """Let go of the error, if there is one, and hand it on.

        It holds the frames that it came through, so the model, and so the tensors whose hooks hold this writer: a
        circle through a framework's own objects, which no collector finds.
        """
        error = self._error
        if error:
            self._error = ValueError(f"{self._data_path}: nothing can be added, it has ended")
        return error

    def _stop(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        self._file.close()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is not None:
                continue
            try:
                entry, array, unchanged = item
                self._entries[entry.name] = self._write(entry, array)
                if unchanged and not unchanged():
                    raise Overwritten(f"{entry.name} was written to while it was recorded")
            except BaseException as error:  # a full disk, say: told to whoever adds or closes next
                self._error = error

    def _write(self, entry: Entry, array: np.ndarray) -> Entry:
        flat = np.ascontiguousarray(array)
        if not flat.dtype.isnative:
            flat = flat.astype(flat.dtype.newbyteorder("="))
        payload = flat.reshape(-1).view(np.uint8).data if flat.size else memoryview(b"")
        padding = -self._position % ALIGNMENT
        for chunk in (b"\0" * padding, payload):
            self._file.write(chunk)
            self._file_hash.update(chunk)
        offset = self._position + padding
        self._position = offset + flat.nbytes
        return replace(entry, offset=offset)


class Store(Mapping[str, np.ndarray]):
    """A written store, mapped: `store[name]` is a read-only array (bfloat16 comes back widened to float32)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        data, index = (folder / file for file in store_files(name))
        try:
            size, text = data.stat().st_size, index.read_bytes()
            self._bytes = np.memmap(data, np.uint8, "r") if size else np.empty(0, np.uint8)
        except OSError as error:
            raise UsageError(f"{error.filename}: cannot read the recording: {error.strerror}") from None
        self.entries = read_index(text, size, str(index))

    def only(self, wanted: Callable[[str], bool]) -> "Store":
        """The same store, of which only these names can be seen."""
        part = copy(self)
        part.entries = {name: entry for name, entry in self.entries.items() if wanted(name)}
        return part

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        if not entry.stored:
            raise UsageError(f"{self.folder}: {name} was kept as a summary only; record again with --keep full")
        raw = self.raw(name)
        return (raw.astype(np.uint32) << 16).view(np.float32) if entry.dtype == BFLOAT16 else raw

    def raw(self, name: str) -> np.ndarray:
        """As stored: bfloat16 as its bits in uint16."""
        entry = self.entries[name]
        piece = self._bytes[entry.offset : entry.offset + entry.nbytes]
        return piece.view(DTYPES[entry.dtype]).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def thin(store: Store, folder: Path, keep: Collection[str]) -> dict[str, str]:
    """Write the store again into `folder`, in full only what `keep` names; the answer is the files' hashes."""
    with StoreWriter(folder, store.name) as writer:
        for name, entry in store.entries.items():
            if (entry.facts or {}).get("same_as") in keep:
                writer.alias(name, (entry.facts or {})["same_as"], entry.kind)
            elif name in keep:
                bits = entry.dtype == BFLOAT16
                array = store.raw(name) if bits else store[name]
                writer.add(name, array, entry.kind, bfloat16=bits, headline=entry.headline, facts=entry.facts)
            else:
                facts = {**(entry.facts or {}), "summary": _summary(store[name])}
                writer.describe(replace(entry, offset=0, facts=facts, stored=False))
    return writer.hashes


def _summary(array: np.ndarray) -> dict[str, float | int]:
    values = np.abs(array) if array.dtype.kind == "c" else array.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {"size": array.size, "finite": 0}
    return {
        "size": array.size,
        "finite": finite.size,
        "mean": float(finite.mean()),
        "rms": float(np.sqrt(np.mean(np.square(finite)))),
        "min": float(finite.min()),
        "max": float(finite.max()),
    }


def read_index(text: bytes, size: int, origin: str) -> dict[str, Entry]:
    """The entries of an index by name, each made sure to fit tensors of `size` bytes in all.

    An index is data from elsewhere. Raises UsageError, naming `origin`, whatever the bytes.
    """
    try:
        rows = [json.loads(line) for line in text.decode().split("\n") if line]
        entries = [Entry(**{**row, "shape": tuple(row["shape"])}) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{origin}: not a recording's index ({error}); record again") from None
    found: dict[str, Entry] = {}
    for entry in entries:
        if wrong := _wrong(entry, size) or ("comes twice" if entry.name in found else ""):
            raise UsageError(f"{origin}: tensor {str(entry.name)[:200]!r} {wrong}; record again")
        found[entry.name] = entry
    return found


def _wrong(entry: Entry, size: int) -> str:
    """What cannot be true of an entry; empty if nothing."""
    told = (entry.name, entry.headline, entry.stored)
    if tuple(map(type, told)) != (str, bool, bool) or not isinstance(entry.facts, dict | None):
        return "has fields of the wrong type"
    if not isinstance((entry.facts or {}).get("same_as", ""), str):
        return "has no name where another tensor's belongs"
    if entry.kind not in KINDS:
        return f"has unknown kind {entry.kind!r}"
    if not isinstance(entry.dtype, str) or entry.dtype not in DTYPES:
        return f"has unknown dtype {entry.dtype!r}; only numbers and booleans can be compared"
    counts = (*entry.shape, entry.offset, entry.nbytes)
    if not all(type(count) is int and count >= 0 for count in counts):
        return "has a negative or fractional size"
    if len(entry.shape) > DIMENSIONS or any(count > LARGEST for count in counts):
        return "has a shape or place that no array can have"
    # numpy refuses even an empty array whose other sides are too long together.
    width = DTYPES[entry.dtype].itemsize
    if math.prod(side for side in entry.shape if side) * width > LARGEST:
        return "has a shape that no array can have"
    if math.prod(entry.shape) * width != entry.nbytes or (entry.stored and entry.offset + entry.nbytes > size):
        return f"does not fit its file ({entry.nbytes} bytes at {entry.offset} of {size})"
    return ""
