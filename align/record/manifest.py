"""A recording is a folder made aside, hashed, and renamed when whole; its manifest says what it was made from."""

import json
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from align.errors import UsageError
from align.record.store import Store, thin

SCHEMA = "recording/1"
MANIFEST = "manifest.json"
NOISE = ".noise.json"  # after a step's name: the reference's errors in its perturbed runs


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
    files: dict[str, str] = field(default_factory=dict)


class Recording:
    """A whole recording, opened for reading: `recording.step("forward")` is its store of tensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / MANIFEST
        try:
            self.manifest = Manifest(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise UsageError(f"{folder}: not a recording (no {MANIFEST}); record it with `align run`") from None
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path}: unreadable manifest ({error}); record again") from None

    def step(self, name: str) -> Store:
        return Store(self.folder, name)

    def noise(self, step: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """By row and dtype, the (rms, maximum) error of every perturbed run of a step; empty where none was made."""
        path = self.folder / f"{step}{NOISE}"
        return json.loads(path.read_text()) if path.is_file() else {}

    def verify(self) -> None:
        """Raise UsageError unless every file named in the manifest is there with the bytes it was written with."""
        for name, expected in self.manifest.files.items():
            path = self.folder / Path(name).name
            if not path.is_file():
                raise UsageError(f"{path}: missing from its recording; record again")
            if blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest() != expected:
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
    folder = parent / f".partial-{name}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    return folder


def finish(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest and rename the folder to its final name; the answer is the new path."""
    write_json(folder / MANIFEST, asdict(manifest))
    final = folder.with_name(folder.name.removeprefix(".partial-"))
    folder.rename(final)
    return final


def prune(parent: Path, keep: set[Path], prefix: str) -> None:
    """Remove older recordings of the same run, and what a killed run left behind."""
    for folder in parent.iterdir() if parent.is_dir() else ():
        stem = folder.name.removeprefix(".partial-").rpartition("-")[0]
        if stem == prefix and folder not in keep:
            remove(folder)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def latest(parent: Path, prefix: str) -> Path | None:
    """The newest whole recording whose name is `<prefix>-<id>`, or None."""
    found = [p.parent for p in parent.glob(f"{prefix}-*/{MANIFEST}") if not p.parent.name.startswith(".")]
    found = [p for p in found if p.name.rpartition("-")[0] == prefix]
    return max(found, key=lambda p: (p / MANIFEST).stat().st_mtime, default=None)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one move, so that a reader never sees half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    aside.replace(path)
