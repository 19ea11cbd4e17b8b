"""One conversion: read and check, write aside, read back and check again, move into place."""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from align.convert.package import Answer, ask
from align.errors import EnvironmentFault, UsageError
from align.record.safe_pickle import read_pdparams

# The side that knows a kind of file; None: both do.
KINDS: dict[str, str | None] = {".pth": "torch", ".pdparams": "paddle", ".safetensors": None}


@dataclass(frozen=True)
class Conversion:
    """What was done. `sha256` is the new file's; `tensor_sha256` each tensor's in PyTorch's layout, by official key."""

    source: str
    target: str
    variant: str
    keys: str
    tensors: int
    transposed: int
    notes: list[str]
    sha256: str
    tensor_sha256: dict[str, str]


def convert(
    source: Path,
    target: Path,
    *,
    variant: str | None = None,
    keys: str = "official",
    force: bool = False,
    pythons: Mapping[str, str | None] | None = None,
    tell: Callable[[str, str], None] = lambda phase, text: None,
) -> Conversion:
    """Convert a file of PiT weights; the kinds are told by suffix (KINDS).

    `variant` refuses any other; by default names and shapes decide. `keys` of the new file are "official" or "timm".
    `pythons` gives the interpreter of a side. `tell(phase, text)` is called after each phase. The target appears whole
    or not at all, and only after every tensor in it was read back with the hash it had in the source, and loaded into
    the model. Raises UsageError and EnvironmentFault.
    """
    pythons = pythons or {}
    reader, writer = _sides(source, target)
    if not source.is_file():
        raise UsageError(f"{source}: there is no such file; give the weights to convert")
    if target.exists() and not force:
        raise UsageError(f"{target}: exists already; choose another name, or replace it with --force")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}; make it first")
    aside = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")  # the suffix says what to write
    try:
        read, wrote = _by_the_sides(source, aside, reader, writer, variant, keys, pythons)
        tell("read", f"{source}: {read.variant}, {len(read.sha256)} tensors, by {reader}")
        for note in read.notes:
            tell("note", note)
        transposed = wrote.transposed if target.suffix == ".pdparams" else []
        tell("written", f"{target}: {keys} keys, {len(transposed)} tensors transposed, by {writer}")
        _compare(read, wrote.sha256, target, writer)
        _compare(read, wrote.read_back, target, writer)
        if target.suffix != ".pth":  # which only torch can read, and has
            _compare(read, _read_again(aside, keys, transposed), target, "align")
        tell("checked", f"every hash is the source's; loaded into {read.variant}")
        digest = _file_sha256(aside)
        os.replace(aside, target)
    except EnvironmentFault as error:
        raise EnvironmentFault(str(error).replace(str(aside.absolute()), str(target))) from error
    except OSError as error:
        raise EnvironmentFault(
            f"{target}: cannot be written: {error.strerror}; free space or choose a folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return Conversion(
        source=str(source),
        target=str(target),
        variant=read.variant,
        keys=keys,
        tensors=len(read.sha256),
        transposed=len(transposed),
        notes=read.notes,
        sha256=digest,
        tensor_sha256=read.sha256,
    )


def _sides(source: Path, target: Path) -> tuple[str, str]:
    """Who reads and who writes; as few sides as possible."""
    for path in (source, target):
        if path.suffix not in KINDS:
            raise UsageError(f"{path}: unknown kind of file {path.suffix!r}; one of {', '.join(KINDS)} is needed")
    first, second = KINDS[source.suffix], KINDS[target.suffix]
    return first or second or "torch", second or first or "torch"


def _by_the_sides(
    source: Path,
    aside: Path,
    reader: str,
    writer: str,
    variant: str | None,
    keys: str,
    pythons: Mapping[str, str | None],
) -> tuple[Answer, Answer]:
    """What reader and writer said; one process if one side does both, and else a file of both sides between them."""
    accept = [] if variant is None else ["--variant", variant]
    given, made = str(source.absolute()), str(aside.absolute())
    if reader == writer:
        answer = ask(writer, pythons.get(writer), "write", given, made, "--keys", keys, *accept)
        return answer, answer
    with tempfile.TemporaryDirectory(prefix="align-convert-") as folder:
        state = os.path.join(folder, "state.safetensors")
        read = ask(reader, pythons.get(reader), "read", given, state, *accept)
        return read, ask(writer, pythons.get(writer), "write", state, made, "--keys", keys, "--variant", read.variant)


def _compare(read: Answer, found: Mapping[str, str], target: Path, who: str) -> None:
    wrong = sorted(name for name in read.sha256.keys() | found.keys() if read.sha256.get(name) != found.get(name))
    if wrong:
        raise EnvironmentFault(
            f"{target}: not kept, because read back by {who} {len(wrong)} of {len(read.sha256)} tensors are not the "
            f"source's: {', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}"
        )


def _read_again(path: Path, keys: str, transposed: list[str]) -> dict[str, str]:
    """Hashes of the new file's tensors by a reader that shares no code with the one that wrote it."""
    if path.suffix == ".pdparams":
        arrays = read_pdparams(path)
    else:
        arrays = load_file(path)
    official = {_official(name) if keys == "timm" else name: array for name, array in arrays.items()}
    turned = set(transposed)
    return {
        name: hashlib.sha256(np.ascontiguousarray(array.T if name in turned else array).data).hexdigest()
        for name, array in official.items()
    }


def _official(name: str) -> str:
    """timm keeps the pool between two stages in the second (timm 1.0.31, models/pit.py)."""
    return re.sub(r"^transformers\.(\d+)\.pool\.", lambda match: f"pools.{int(match[1]) - 1}.", name)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
