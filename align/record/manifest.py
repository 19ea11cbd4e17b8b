"""A recording is a folder made aside, hashed, and renamed when whole; its manifest says what it was made from."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast, get_origin

from blake3 import blake3

from align.case import STEPS
from align.errors import UsageError
from align.record.hashing import file_hash
from align.record.store import Store, store_files, thin

SCHEMA = "recording/1"
MANIFEST = "manifest.json"
NOISE = ".noise.json"  # after a step's name: the reference's errors in its perturbed runs
NO_KERNEL = "no twin: "  # before a failure of the port's float64 run that is its framework's: it has no such kernel
PARTIAL = ".partial-"  # before the name of a folder that is being made or removed


@dataclass
class Manifest:
    """What one run was: side, device, dtype, its sources and environment, and the hash of every file beside it."""

    case: str
    side: str
    device: str
    dtype: str
    plan: str
    sources: dict[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA
    steps: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)  # where paired: the reference's table, the port's mapping
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for own in fields(self):
            kind = get_origin(own.type) or own.type
            if not isinstance(getattr(self, own.name), cast(type, kind)):
                raise TypeError(f"{own.name} is no {cast(type, kind).__name__}")
        if self.schema != SCHEMA:
            raise ValueError(f"written as {self.schema!r}, this version reads {SCHEMA!r}")
        if unknown := self.steps.keys() - set(STEPS):
            raise ValueError(f"unknown step {min(unknown)!r}")


class Recording:
    """A whole recording, opened for reading: `recording.step("forward")` is its store of tensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / MANIFEST
        try:
            told = json.loads(path.read_text())
            expected = told["files"].pop(MANIFEST, None)
            self.manifest = Manifest(**told)
        except FileNotFoundError:
            raise UsageError(f"{folder}: not a recording (no {MANIFEST}); record it with `align run`") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UsageError(f"{path}: unreadable manifest ({error}); record again") from None
        if expected != _digest(told):
            raise UsageError(f"{path}: its content does not have its hash; it is damaged or was changed; record again")

    def step(self, name: str) -> Store:
        return Store(self.folder, name)

    def noise(self, step: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """By row and dtype, the (rms, maximum) error of every perturbed run of a step; empty where none was made."""
        path = self.folder / f"{step}{NOISE}"
        if not path.is_file():
            return {}
        try:
            return {
                name: {dtype: [_errors(*pair) for pair in pairs] for dtype, pairs in errors.items()}
                for name, errors in json.loads(path.read_text()).items()
            }
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{path}: unreadable noise ({error}); record again") from None

    def verify(self) -> None:
        """Raise UsageError unless every file of the recording is there with the bytes it was written with."""
        files = self.manifest.files
        for step in self.manifest.steps:
            for name in store_files(step):
                if name not in files:
                    raise UsageError(f"{self.folder / MANIFEST}: has no hash of {name}; record again")
        for name, expected in files.items():
            path = self.folder / Path(name).name
            if not path.is_file():
                raise UsageError(f"{path}: missing from its recording; record again")
            try:
                found = file_hash(path)
            except OSError as error:
                raise UsageError(f"{path}: cannot read it: {error.strerror}") from None
            if found != expected:
                raise UsageError(f"{path}: its hash is not the one in {MANIFEST}; it is damaged or was changed")

    def thin(self, keep: Mapping[str, Collection[str]]) -> None:
        """Replace the recording by one that holds, by step, only the named tensors in full and of others a summary."""
        folder = start(self.folder.parent, self.folder.name.rpartition("-")[0])
        files = {p.name: h for p in self.folder.glob(f"*{NOISE}") if (h := self.manifest.files.get(p.name))}
        for name in files:
            shutil.copyfile(self.folder / name, folder / name)
        for step in self.manifest.steps:
            files |= thin(self.step(step), folder, keep.get(step, ()))
        thinned = finish(folder, replace(self.manifest, files=files))
        remove(self.folder)
        self.folder = thinned


def start(parent: Path, name: str) -> Path:
    """A fresh folder for a recording in the making, beside its final place so that the rename cannot cross devices."""
    folder = parent / f"{PARTIAL}{name}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    return folder


def finish(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest and rename the folder to its final name; the answer is the new path."""
    seal(folder, manifest)
    return publish(folder)


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, with a hash of its own: the folder is whole."""
    told = asdict(manifest)
    told["files"][MANIFEST] = _digest(told)
    write_json(folder / MANIFEST, told)


def publish(folder: Path) -> Path:
    """Rename a whole folder to its final name; until then no reader looks at it. The answer is the new path."""
    final = folder.with_name(folder.name.removeprefix(PARTIAL))
    folder.rename(final)
    return final


def prune(parent: Path, keep: set[Path], prefix: str) -> None:
    """Remove older recordings of the same run."""
    for folder in parent.iterdir() if parent.is_dir() else ():
        if folder.name.rpartition("-")[0] == prefix and folder not in keep:
            remove(folder)


def sweep(parent: Path) -> None:
    """Remove what runs that were killed or failed left behind; only for whoever holds the folder."""
    for folder in parent.glob(f"{PARTIAL}*"):
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder, hidden first: killed half-way, it must not be taken for a whole recording."""
    if not folder.name.startswith(PARTIAL):
        hidden = folder.with_name(PARTIAL + folder.name)
        with suppress(OSError):
            folder.rename(hidden)
            folder = hidden
    shutil.rmtree(folder, ignore_errors=True)


def latest(parent: Path, prefix: str) -> Path | None:
    """The newest whole recording whose name is `<prefix>-<id>`, or None."""
    found = [p.parent for p in parent.glob(f"{prefix}-*/{MANIFEST}") if not p.parent.name.startswith(".")]
    found = [p for p in found if p.name.rpartition("-")[0] == prefix]
    return max(found, key=lambda p: (p / MANIFEST).stat().st_mtime, default=None)


def _digest(told: Mapping[str, Any]) -> str:
    return blake3(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _errors(rms: float, maximum: float) -> tuple[float, float]:
    if not (0 <= rms < math.inf and 0 <= maximum < math.inf):
        raise ValueError(f"an error of {rms}, {maximum}")
    return rms, maximum


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one move, so that a reader never sees half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
