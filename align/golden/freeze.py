"""From a run's recordings of the reference to one file."""

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from align import __version__
from align.case import NEEDS
from align.compare.judge import Sources, own_noise
from align.errors import UsageError
from align.golden import archive
from align.golden.thinning import BYTES, SUMS, THINNED, digest, how, thin
from align.pipeline import TWIN
from align.plan import Plan, open_plan, photographs
from align.record.hashing import file_hash
from align.record.manifest import MANIFEST, NOISE, Recording, write_json
from align.record.store import BFLOAT16, Entry, Store, StoreWriter
from align.steps import WITHOUT_TWIN

DIGITS = 4  # of a noise


@dataclass(frozen=True)
class Reference:
    """A reference's recordings in the working type and in float64, with the plan they were made by."""

    working: Recording
    twin: Recording
    plan: Plan

    @classmethod
    def of(cls, working: Recording, twin: Recording) -> "Reference":
        plan = open_plan(working.folder.parent / f"plan-{working.manifest.plan}")
        for recording in (working, twin):
            recording.verify()
            if recording.manifest.plan != plan.id:
                raise UsageError(f"{recording.folder}: made by another plan than {plan.folder.name}; record again")
        return cls(working, twin, plan)


def freeze(reference: Reference, steps: Collection[str], target: Path) -> None:
    """Write `target`, replaced in one move. Raises UsageError for a step that was not recorded in full."""
    working, twin = reference.working.manifest, reference.twin.manifest
    for step in steps:
        if step not in working.steps or (step not in WITHOUT_TWIN and step not in twin.steps):
            raise UsageError(f"{reference.working.folder}: holds no {step}, or not in float64; record it first")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-golden-") as name:
        folder = Path(name)
        for part in (archive.PLAN, archive.WORKING, archive.TRUTH):
            (folder / part).mkdir()
        for step in steps:
            _step(reference, step, folder)
        shipped = _plan(reference.plan, "data" in steps, folder / archive.PLAN)
        told = {
            "schema": archive.SCHEMA,
            "align": __version__,
            "case": working.case,
            "steps": list(steps),
            "shipped": shipped,
            "recordings": {
                part: {
                    **asdict(manifest),
                    "steps": {s: t for s, t in manifest.steps.items() if s in steps},
                    "files": {},
                }
                for part, manifest in ((archive.WORKING, working), (archive.TRUTH, twin))
            },
        }
        archive.pack(folder, told, target)


def _step(reference: Reference, step: str, folder: Path) -> None:
    working = reference.working.step(step)
    twin = reference.twin.step(step) if step in reference.twin.manifest.steps else None
    noise = reference.working.noise(step)
    dtype = reference.working.manifest.dtype
    errors = own_noise(Sources(working, None, twin, None, noise, dtype), list(working.entries))
    table = {
        name: {
            key: [[_rounded(own.rms), _rounded(own.maximum)]] for key, own in ((dtype, row.working), (TWIN, row.twin))
        }
        for name, row in errors.items()
    }
    write_json(folder / archive.WORKING / f"{step}{NOISE}", table)
    ways = {name: _way(step, entry, working, twin, name in errors) for name, entry in working.entries.items()}
    derived = set(errors) - {name for name in working.entries if _is_exact(step, working.entries[name])}
    _write(step, working, ways, folder / archive.WORKING, derived)
    if twin is not None:
        # What has no noise is not judged by its twin: the row needs to be there, not its values.
        _write(step, twin, ways, folder / archive.TRUTH, set(twin.entries) - set(errors))


def _way(step: str, entry: Entry, working: Store, twin: Store | None, rounds: bool) -> str | None:
    way = how(step, entry)
    if way is None or _is_exact(step, entry):
        return None
    if way == SUMS and not rounds:
        return BYTES
    if way == SUMS and not all(np.isfinite(store[entry.name]).all() for store in (working, twin) if store):
        return None
    return way


def _is_exact(step: str, entry: Entry) -> bool:
    """Whether the working type's own values are kept: those that a step of the port reads, and those of curves."""
    return (step in NEEDS.values() and entry.headline) or (entry.kind == "curve" and how(step, entry) is None)


def _write(step: str, store: Store, ways: dict[str, str | None], folder: Path, described: Collection[str]) -> None:
    """The store again, thinned; of what is `described` only its name, type and shape."""
    with StoreWriter(folder, step) as whole, StoreWriter(folder, f"{step}.{THINNED}") as thinned:
        whole_names: set[str] = set()
        thinned_names: set[str] = set()
        for name, entry in store.entries.items():
            way, facts = ways.get(name), dict(entry.facts or {})
            origin = facts.get("same_as")
            if way is not None:
                facts[THINNED] = way
            if name in described or way is not None:
                if way == BYTES and name not in described:
                    facts["blake3"] = digest(store[name])
                whole.describe(replace(entry, offset=0, facts=facts or None, stored=False))
            elif origin in whole_names:
                whole.alias(name, str(origin), entry.kind)
            else:
                bits = entry.dtype == BFLOAT16
                array = store.raw(name) if bits else store[name]
                whole.add(name, array, entry.kind, bfloat16=bits, headline=entry.headline, facts=entry.facts)
            if way is not None and name not in described:
                if origin in thinned_names:
                    thinned.alias(name, str(origin), entry.kind)
                else:
                    thinned.add(name, thin(store[name], way), entry.kind)
                thinned_names.add(name)
            elif way is None and name not in described:
                whole_names.add(name)


def _plan(plan: Plan, images: bool, folder: Path) -> dict[str, str]:
    """Copy the plan; of image files only those that no package ships. The answer is the others' hashes by name."""
    for path in plan.folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    if not images:
        return {}
    (folder / archive.IMAGES).mkdir()
    shipped = {file_hash(path) for path in photographs.shipped()}
    found = {}
    for path in plan.images.values():
        if (told := file_hash(path)) in shipped:
            found[path.name] = told
        else:
            (folder / archive.IMAGES / path.name).write_bytes(path.read_bytes())
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def references(folder: Path, case: str | None) -> Iterator[Reference]:
    """Every case's newest reference under a folder, or that of `case`: what can be frozen."""
    found: dict[tuple[str, str], Recording] = {}
    manifests = [path for path in folder.rglob(MANIFEST) if not path.parent.name.startswith(".")]
    for path in sorted(manifests, key=lambda path: path.stat().st_mtime):
        recording = Recording(path.parent)
        told = recording.manifest
        if told.side == "torch" and case in (None, told.case):
            found[told.case, TWIN if told.dtype == TWIN else "working"] = recording
    for (name, dtype), recording in found.items():
        if dtype != TWIN and (name, TWIN) in found:
            yield Reference.of(recording, found[name, TWIN])
