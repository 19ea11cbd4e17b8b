"""The file of a golden recording: a zip of raw bytes and JSON, hashed, read without executing anything.

`golden.json` says what it is and holds the size and BLAKE3 hash of every other member. `plan/` is the plan as it was,
without the images that packages ship; `working/` and `truth/` are the reference's recordings in the working type and in
float64, thinned. Values of the working type that are the truth's, rounded, are left out and made again.
"""

import json
import lzma
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from align.case import STEPS, Case, from_json
from align.errors import Incomparable, UsageError
from align.golden.thinning import THINNED, way_of
from align.pipeline import TWIN
from align.plan import folders, open_plan, photographs
from align.record import manifest
from align.record.hashing import file_hash
from align.record.manifest import Manifest, Recording
from align.record.store import BFLOAT16, Store, StoreWriter, store_files
from align.sides import DTYPES

SCHEMA = "golden/1"
HEAD = "golden.json"
PLAN, IMAGES, WORKING, TRUTH = "plan", "images", "working", "truth"
MEMBER = re.compile(r"(plan|plan/images|working|truth)/(?!\.)[^/\\\0]{1,200}")
LARGEST = 1 << 32  # bytes of all members together: more is no golden recording, but a bomb
LARGEST_HEAD = 1 << 26
CHUNK = 1 << 20
DAMAGED = (zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, EOFError, RuntimeError, NotImplementedError)


def pack(folder: Path, told: Mapping[str, Any], target: Path) -> None:
    """Everything under `folder`, and `told` with the hashes, into `target`. The same content gives the same bytes."""
    members = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in members}
    files = {name: {"bytes": path.stat().st_size, "blake3": file_hash(path)} for name, path in names.items()}
    head = {**told, "files": files}
    head["files"] = {**files, HEAD: {"bytes": 0, "blake3": _digest(head)}}
    aside = folder / ".whole"
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_LZMA) as file:
        file.writestr(_member(HEAD), json.dumps(head, ensure_ascii=False))
        for name, path in names.items():
            with file.open(_member(name), "w", force_zip64=True) as member, path.open("rb") as source:
                shutil.copyfileobj(source, member, CHUNK)
    aside.replace(target)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)  # of a fixed date
    member.compress_type, member.external_attr = zipfile.ZIP_LZMA, 0o644 << 16
    return member


@dataclass(frozen=True)
class Golden:
    """An opened file: what its head says, checked as far as that goes without unpacking."""

    path: Path
    head: Mapping[str, Any]
    working: Manifest
    truth: Manifest
    case: Case

    @property
    def steps(self) -> tuple[str, ...]:
        return tuple(self.head["steps"])

    @property
    def id(self) -> str:
        """The hash of all it holds."""
        return self.head["files"][HEAD]["blake3"]


def read(path: Path) -> Golden:
    """Open a file. Raises UsageError, naming what is wrong, for one that is missing, damaged, cut or another thing."""
    try:
        with zipfile.ZipFile(path) as file:
            head = json.loads(_bounded(file, HEAD, LARGEST_HEAD))
            if not isinstance(head, dict) or head.get("schema") != SCHEMA:
                written = head.get("schema") if isinstance(head, dict) else None
                raise UsageError(f"{path}: written as {written!r}, this version reads {SCHEMA!r}; freeze it again")
            own = head["files"].pop(HEAD)
            if own["blake3"] != _digest(head):
                raise UsageError(f"{path}: {HEAD} does not have its hash; it is damaged; freeze it again")
            _check_members(path, file, head["files"])
            plan = json.loads(_bounded(file, f"{PLAN}/plan.json", LARGEST_HEAD))
        _check_head(head)
        working, truth = (Manifest(**head["recordings"][part]) for part in (WORKING, TRUTH))
        if (truth.dtype, truth.side, working.side) != (TWIN, "torch", "torch") or working.dtype == TWIN:
            raise ValueError("it holds no reference in a working type and in float64")
        if not {working.dtype} <= set(DTYPES) or not {working.device, truth.device} <= {"cpu", "gpu"}:
            raise ValueError(f"unknown type {working.dtype!r} or device {working.device!r}")
        head["files"][HEAD] = own
        return Golden(path, head, working, truth, from_json(plan["case"]))
    except FileNotFoundError:
        raise UsageError(f"--against {path}: no such file; make it with `align freeze`") from None
    except KeyError as error:
        raise UsageError(f"{path}: no golden recording: it has no {error}; make one with `align freeze`") from None
    except (*DAMAGED, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: no golden recording, or damaged ({error}); make one with `align freeze`") from None


def _check_head(head: Mapping[str, Any]) -> None:
    if not isinstance(head["align"], str) or not isinstance(head["steps"], list) or not head["steps"]:
        raise ValueError("it does not say by which version, and of which steps")
    if unknown := set(head["steps"]) - set(STEPS):
        raise ValueError(f"unknown steps {sorted(unknown)}")
    if not all(isinstance(text, str) for pair in head["shipped"].items() for text in pair):
        raise ValueError("shipped images are names and hashes")


def _bounded(file: zipfile.ZipFile, name: str, largest: int) -> bytes:
    with file.open(name) as member:
        content = member.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"{name} is larger than {largest} bytes")
    return content


def _check_members(path: Path, file: zipfile.ZipFile, files: Mapping[str, Any]) -> None:
    """Exactly the members that the head lists, under names that lead nowhere else."""
    listed = [name for name in file.namelist() if name != HEAD]
    if sorted(listed) != sorted(files):
        odd = sorted(set(listed) ^ set(files)) or listed
        raise UsageError(f"{path}: {odd[0]!r} is missing, or does not belong there; freeze it again")
    if wrong := [name for name in listed if not MEMBER.fullmatch(name)]:
        raise UsageError(f"{path}: a member may not be called {wrong[0]!r}; freeze it again")
    sizes = [entry["bytes"] for entry in files.values()]
    if not all(type(size) is int and size >= 0 for size in sizes) or sum(sizes) > LARGEST:
        raise UsageError(f"{path}: claims to hold {sum(sizes)} bytes, at most {LARGEST} are read")


def unpack(golden: Golden, parent: Path) -> dict[str, Recording]:
    """The plan and both recordings as folders under `parent`, older ones replaced; the recordings by dtype.

    Raises UsageError for a damaged file, and Incomparable if a package ships another image than when it was frozen.
    """
    manifest.sweep(parent)
    parts = {part: manifest.start(parent, part) for part in (PLAN, WORKING, TRUTH)}
    (parts[PLAN] / IMAGES).mkdir()
    _extract(golden, parts)
    _images(golden, parts[PLAN] / IMAGES)
    plan = open_plan(parts[PLAN])
    if plan.id != golden.working.plan:
        raise UsageError(f"{golden.path}: its plan is not the one that was recorded; freeze it again")
    if "data" in golden.steps:
        if plan.description.get("classes") != [*folders.FILES]:
            raise Incomparable(f"{golden.path}: frozen with other folders than `data` reads now; freeze it again")
        folders.make(plan.classes)
    told = {**golden.working.sources, "golden": golden.id}
    found = {}
    for part, made in ((TRUTH, golden.truth), (WORKING, golden.working)):
        files: dict[str, str] = {}
        for step in made.steps:
            files |= _restored(parts[WORKING], parts[TRUTH], step) if part == WORKING else {}
        files |= {path.name: file_hash(path) for path in parts[part].iterdir() if path.name not in files}
        manifest.seal(parts[part], replace(made, sources=told, files=files))
    for part, made in ((TRUTH, golden.truth), (WORKING, golden.working)):
        prefix = f"{made.side}-{made.device}-{made.dtype}"
        manifest.prune(parent, set(), prefix)
        found[made.dtype] = Recording(parts[part].rename(parent / f"{prefix}-{golden.id[:8]}"))
    final = parent / f"plan-{golden.working.plan}"
    manifest.remove(final)
    parts[PLAN].rename(final)
    return found


def _extract(golden: Golden, parts: Mapping[str, Path]) -> None:
    try:
        with zipfile.ZipFile(golden.path) as file:
            for name, entry in golden.head["files"].items():
                if name == HEAD:
                    continue
                part, _, rest = name.partition("/")
                size, total = 0, blake3()
                with file.open(name) as member, (parts[part] / rest).open("wb") as target:
                    while chunk := member.read(CHUNK):
                        if (size := size + len(chunk)) > entry["bytes"]:
                            break
                        total.update(chunk)
                        target.write(chunk)
                if size != entry["bytes"] or total.hexdigest() != entry["blake3"]:
                    raise UsageError(f"{golden.path}: {name} does not have its hash; it is damaged; freeze it again")
    except (*DAMAGED, KeyError, ValueError) as error:
        raise UsageError(f"{golden.path}: damaged ({error}); freeze it again") from None


def _images(golden: Golden, folder: Path) -> None:
    """The photographs that packages ship, from the packages."""
    shipped: Mapping[str, str] = golden.head["shipped"]
    if not shipped:
        return
    here = {file_hash(path): path for path in photographs.shipped()}
    for name, told in shipped.items():
        if told not in here:
            raise Incomparable(
                f"{golden.path}: scikit-image or scikit-learn ships another {name} than when it was frozen; "
                "install the version that requirements.lock names, or freeze it again"
            )
        shutil.copyfile(here[told], folder / Path(name).name)


def _restored(working: Path, truth: Path, step: str) -> dict[str, str]:
    """Write a step of the working type again with the values that are the truth's, rounded; the new files' hashes."""
    frozen = Store(working, step)
    if not (truth / store_files(step)[0]).is_file():
        return {}
    twins, thinned = Store(truth, step), Store(truth, f"{step}.{THINNED}")
    own = Store(working, f"{step}.{THINNED}")
    again = manifest.start(working, step)
    names: dict[bool, set[str]] = {True: set(), False: set()}
    with StoreWriter(again, step) as whole, StoreWriter(again, f"{step}.{THINNED}") as sums:
        for name, entry in frozen.entries.items():
            origin, is_whole = (entry.facts or {}).get("same_as"), way_of(entry) is None
            if not is_whole:
                whole.describe(entry)
            if origin in names[is_whole]:
                (whole if is_whole else sums).alias(name, str(origin), entry.kind)
            elif not is_whole:
                sums.add(name, own[name] if name in own else thinned[name], entry.kind)
            else:
                array = frozen.raw(name) if entry.stored else _rounded(twins[name], entry.dtype)
                bits = entry.dtype == BFLOAT16
                whole.add(name, array, entry.kind, bfloat16=bits, headline=entry.headline, facts=entry.facts)
            names[is_whole].add(name)
    for path in again.iterdir():
        path.replace(working / path.name)
    again.rmdir()
    return {**whole.hashes, **sums.hashes}


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """To the nearest number of the type, ties to even; bfloat16 as its bits."""
    if dtype != BFLOAT16:
        return array.astype(dtype)
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _digest(head: Mapping[str, Any]) -> str:
    return blake3(json.dumps(head, sort_keys=True).encode()).hexdigest()
