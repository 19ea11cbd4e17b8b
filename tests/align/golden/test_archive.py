"""A golden recording from elsewhere: what is damaged, cut, foreign or malicious is refused, whatever the bytes."""

import json
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align.case import Case, Input
from align.errors import UsageError
from align.golden import archive
from align.golden.freeze import Reference, freeze
from align.plan import open_plan
from align.record import manifest
from align.record.manifest import Manifest, Recording
from align.record.store import StoreWriter

CASE = Case("made_up", "nowhere:a", "nowhere:b", {}, (Input("image", (2, 3)),), 4)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A small reference: `forward` with a large, a small, an aliased, an integer and a partly infinite tensor."""
    parent = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    folder = manifest.start(parent, "plan")
    with StoreWriter(folder, "plan") as store:
        store.add("weights/w", rng.standard_normal((9, 9)).astype(np.float32), "parameter")
    told = {"schema": "plan/1", "case": asdict(CASE), "weights": "probe weights", "images": {}, "hashes": store.hashes}
    manifest.write_json(folder / "plan.json", told)
    plan = open_plan(folder)
    plan = open_plan(folder.rename(parent / f"plan-{plan.id}"))
    large, small = rng.standard_normal((20, 30)), rng.standard_normal(5)
    masked = np.where(np.tri(20, 20, dtype=bool), rng.standard_normal((20, 20)), -np.inf)
    recordings = []
    for dtype in ("float32", "float64"):
        place = manifest.start(parent, f"torch-cpu-{dtype}")
        with StoreWriter(place, "forward") as store:
            store.add("logits", rng.standard_normal((4, 40)).astype(dtype), "output", headline=True)
            store.add("activation/a/out", large.astype(dtype), "activation")
            store.alias("activation/b/in", "activation/a/out", "activation")
            store.add("activation/b/out", small.astype(dtype), "activation")
            store.add("activation/mask", masked.astype(dtype), "activation")
            store.add("activation/places", np.arange(300), "activation")
        made = Manifest(
            "made_up", "torch", "cpu", dtype, plan.id, plan.sources, steps={"forward": 0.5}, files=store.hashes
        )
        recordings.append(Recording(manifest.finish(place, made)))
    return Reference.of(*recordings)


@pytest.fixture(scope="module")
def frozen(reference, tmp_path_factory):
    target = tmp_path_factory.mktemp("golden") / "made_up.align"
    freeze(reference, ("forward",), target)
    return target


def test_what_was_frozen_comes_back(reference, frozen, tmp_path):
    golden = archive.read(frozen)
    assert (golden.case, golden.steps) == (CASE, ("forward",))
    found = archive.unpack(golden, tmp_path)
    for recording in found.values():
        recording.verify()
    working, twin = (found[dtype].step("forward") for dtype in ("float32", "float64"))
    theirs, truth = reference.working.step("forward"), reference.twin.step("forward")
    assert list(working.entries) == list(theirs.entries)
    assert [entry.shape for entry in working.entries.values()] == [entry.shape for entry in theirs.entries.values()]
    # What the port's own steps read is the reference's to the bit; other values are the truth's, rounded.
    np.testing.assert_array_equal(working["logits"], theirs["logits"])
    np.testing.assert_array_equal(twin["activation/b/out"], truth["activation/b/out"])
    np.testing.assert_array_equal(working["activation/b/out"], truth["activation/b/out"].astype(np.float32))
    np.testing.assert_array_equal(twin["activation/mask"], truth["activation/mask"])
    assert [name for name, entry in working.entries.items() if not entry.stored] == [
        "activation/a/out",
        "activation/b/in",
        "activation/places",
    ]


def test_the_same_recordings_give_the_same_bytes(reference, frozen, tmp_path):
    freeze(reference, ("forward",), tmp_path / "again.align")
    assert (tmp_path / "again.align").read_bytes() == frozen.read_bytes()


def test_a_second_unpacking_replaces_the_first(frozen, tmp_path):
    golden = archive.read(frozen)
    for _ in range(2):
        archive.unpack(golden, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def rewritten(frozen, target, members=(), head=lambda told: None):
    """The file again with other members, and a head that `head` has changed; its hash is made right, if it can be."""
    with zipfile.ZipFile(frozen) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content |= dict(members)
    told = json.loads(content[archive.HEAD])
    told["files"].pop(archive.HEAD)
    head(told)
    if isinstance(told["files"], dict):
        told["files"] = {**told["files"], archive.HEAD: {"bytes": 0, "blake3": archive._digest(told)}}
    content[archive.HEAD] = json.dumps(told).encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return target


def refused(path, folder, *words):
    with pytest.raises(UsageError) as caught:
        archive.unpack(archive.read(path), folder)
    assert all(word in str(caught.value) for word in (path.name, *words)), caught.value
    assert [path for path in folder.iterdir() if not path.name.startswith(".partial-")] == []


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "none.align", tmp_path, "no such file")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"x" * 10_000])
def test_foreign_files(content, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "foreign.align").write_bytes(content)
    refused(tmp_path / "foreign.align", tmp_path / "in", "no golden recording")


def test_another_zip(tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "other.align", "w") as file:
        file.writestr("hello.txt", "hello")
    refused(tmp_path / "other.align", tmp_path / "in", "no golden recording")


def test_another_version(frozen, tmp_path):
    (tmp_path / "in").mkdir()
    path = rewritten(frozen, tmp_path / "new.align", head=lambda told: told.update(schema="golden/2"))
    refused(path, tmp_path / "in", "golden/2", "golden/1")


def test_a_member_that_leads_out_of_the_folder(frozen, tmp_path):
    (tmp_path / "in").mkdir()
    name = "plan/../../evil"
    path = rewritten(
        frozen,
        tmp_path / "x.align",
        {name: b"x"},
        lambda told: told["files"].update({name: {"bytes": 1, "blake3": ""}}),
    )
    refused(path, tmp_path / "in", "may not be called")
    assert not (tmp_path / "evil").exists()


def test_a_member_that_is_not_listed(frozen, tmp_path):
    (tmp_path / "in").mkdir()
    refused(rewritten(frozen, tmp_path / "x.align", {"plan/more": b"x"}), tmp_path / "in", "does not belong")


def test_a_member_that_says_too_little(frozen, tmp_path):
    """A bomb's head is small; no more is written than it says."""
    (tmp_path / "in").mkdir()
    path = rewritten(frozen, tmp_path / "x.align", {"plan/plan.tensors": bytes(10_000_000)})
    refused(path, tmp_path / "in", "plan/plan.tensors does not have its hash")


def test_a_member_that_claims_to_be_enormous(frozen, tmp_path):
    (tmp_path / "in").mkdir()

    def claim(told):
        told["files"]["plan/plan.tensors"]["bytes"] = 1 << 50

    refused(rewritten(frozen, tmp_path / "x.align", head=claim), tmp_path / "in", "at most")


NONSENSE = [None, [], {}, 3, "x", {"x": 1}]
# What a head may say all the same: any version, and that no image is a package's. The case is told by the plan.
OPENED = [("align", "x"), ("shipped", {}), *(("case", value) for value in NONSENSE)]


@pytest.mark.parametrize("key", ["steps", "shipped", "recordings", "case", "align", "files"])
@pytest.mark.parametrize("value", NONSENSE)
def test_a_head_of_nonsense(frozen, tmp_path, key, value):
    path = rewritten(frozen, tmp_path / "x.align", head=lambda told: told.update({key: value}))
    (tmp_path / "in").mkdir()
    if (key, value) not in OPENED:
        refused(path, tmp_path / "in")
        return
    for recording in archive.unpack(archive.read(path), tmp_path / "in").values():
        recording.verify()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_of_no_account(frozen, tmp_path_factory, place, change):
    folder = tmp_path_factory.mktemp("changed")
    content = bytearray(frozen.read_bytes())
    content[int(place * len(content))] ^= change
    path = folder / "x.align"
    path.write_bytes(content)
    (folder / "in").mkdir()
    try:
        found = archive.unpack(archive.read(path), folder / "in")
    except UsageError:
        return
    whole = archive.unpack(archive.read(frozen), folder / "in")
    for dtype, recording in found.items():  # a date in the zip's own tables, say
        assert recording.manifest.files == whole[dtype].manifest.files


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_refused(frozen, tmp_path_factory, place):
    folder = tmp_path_factory.mktemp("cut")
    (folder / "x.align").write_bytes(frozen.read_bytes()[: int(place * frozen.stat().st_size)])
    (folder / "in").mkdir()
    refused(folder / "x.align", folder / "in")
