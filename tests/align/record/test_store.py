"""The store of tensors: every array comes back as it went in, and whatever an index claims, nothing bad happens."""

import errno
import json
import os
import select
import threading
import tracemalloc
from contextlib import suppress

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align.errors import UsageError
from align.record.store import BFLOAT16, DTYPES, Store, StoreWriter, store_files, thin

NUMBERS = [name for name in DTYPES if name != BFLOAT16]
MEBIBYTE = 1 << 20


def write(folder, arrays, name="step", **options):
    with StoreWriter(folder, name) as writer:
        for key, array in arrays.items():
            writer.add(key, array, "output", **options)
    return Store(folder, name)


def same(ours, theirs):
    assert (ours.dtype, ours.shape) == (theirs.dtype.newbyteorder("="), theirs.shape)
    assert ours.tobytes() == theirs.astype(ours.dtype).tobytes()


def some(dtype, shape):
    """Any bits at all, where that is a value: for floats, NaN with payloads and denormals too."""
    if dtype == "bool":
        return np.random.default_rng(0).integers(0, 2, shape).astype(bool)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(np.random.default_rng(0).bytes(size), dtype).reshape(shape)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0,), (2, 0, 3), (1, 1, 1, 1)])
def test_every_dtype_and_shape_comes_back(tmp_path, dtype, shape):
    array = some(dtype, shape)
    store = write(tmp_path, {"before": np.arange(3, dtype=np.uint8), "x": array})
    same(store["x"], array)
    entry = store.entries["x"]
    assert (entry.dtype, entry.shape, entry.nbytes) == (dtype, shape, array.nbytes)
    assert list(store) == ["before", "x"]


@pytest.mark.parametrize("dtype", [name for name in NUMBERS if np.dtype(name).itemsize > 1])
def test_layouts_and_byte_orders_come_back_as_plain_arrays(tmp_path, dtype):
    base = some(dtype, (4, 6))
    arrays = {
        "fortran": np.asfortranarray(base),
        "transposed": base.T,
        "strided": base[::2, 1::2],
        "reversed": base[::-1],
        "broadcast": np.broadcast_to(base[0], (3, 6)),
        "big-endian": base.astype(base.dtype.newbyteorder(">")),
        "big-endian transposed": base.astype(base.dtype.newbyteorder(">")).T,
        "big-endian 0-d": base.astype(base.dtype.newbyteorder(">"))[0, 0:1].reshape(()),
        "read-only": np.frombuffer(base.tobytes(), base.dtype),
    }
    store = write(tmp_path, arrays)
    for name, array in arrays.items():
        assert store[name].dtype.isnative
        same(store[name], array)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        hnp.arrays(
            st.sampled_from(NUMBERS), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), unique=False
        ),
        max_size=6,
    )
)
def test_any_arrays_come_back_in_their_order(tmp_path, arrays):
    store = write(tmp_path, {str(number): array for number, array in enumerate(arrays)})
    assert list(store) == [str(number) for number in range(len(arrays))]
    for number, array in enumerate(arrays):
        same(store[str(number)], array)
        assert store.entries[str(number)].offset % 64 == 0


def test_bfloat16_is_kept_as_its_bits_and_read_as_float32(tmp_path):
    bits = np.array([[0x3F80, 0xBF80, 0x7F80], [0xFF80, 0x7FC1, 0x0001]], np.uint16)
    store = write(tmp_path, {"x": bits}, bfloat16=True)
    assert store.entries["x"].dtype == "bfloat16"
    assert store.raw("x").tolist() == bits.tolist()
    widened = store["x"]
    assert widened.dtype == np.float32
    assert (widened.view(np.uint32) >> 16).tolist() == bits.tolist()
    assert widened[0].tolist() == [1.0, -1.0, np.inf]
    with pytest.raises(ValueError, match="cannot be recorded"), StoreWriter(tmp_path, "wrong") as writer:
        writer.add("x", np.ones(2, np.float32), "output", bfloat16=True)


def test_what_is_read_cannot_be_written_to(tmp_path):
    store = write(tmp_path, {"x": np.arange(4.0)})
    with pytest.raises(ValueError, match="read-only"):
        store["x"][0] = 1.0


@pytest.mark.parametrize(
    "array", [np.array([{}]), np.array(["text"]), np.zeros(2, "m8[s]"), np.zeros(2, "f4,i4"), np.zeros(2, "longdouble")]
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, array):
    with pytest.raises(ValueError, match=r"x: an array of .* cannot be recorded"), StoreWriter(tmp_path, "s") as writer:
        writer.add("x", array, "output")


def test_a_name_is_recorded_once_and_a_kind_is_known(tmp_path):
    with StoreWriter(tmp_path, "s") as writer:
        writer.add("x", np.ones(1), "output")
        with pytest.raises(ValueError, match="tensor 'x' is recorded twice"):
            writer.add("x", np.zeros(1), "output")
        with pytest.raises(ValueError, match="tensor 'x' is recorded twice"):
            writer.alias("x", "x", "input")
        with pytest.raises(ValueError, match="kind 'outputs' is not one of"):
            writer.add("y", np.ones(1), "outputs")
    assert Store(tmp_path, "s")["x"].tolist() == [1.0]


def test_a_second_name_costs_no_bytes(tmp_path):
    array = np.random.default_rng(0).standard_normal(1000)
    with StoreWriter(tmp_path, "s") as writer:
        writer.add("a/out", array, "activation", headline=True, facts={"note": 1})
        writer.alias("b/in", "a/out", "input")
        writer.alias("c/in", "a/out", "input")
    store = Store(tmp_path, "s")
    assert list(store) == ["a/out", "b/in", "c/in"]
    assert (tmp_path / "s.tensors").stat().st_size == array.nbytes
    for name in store:
        same(store[name], array)
    first, second = store.entries["a/out"], store.entries["b/in"]
    assert (second.kind, second.headline, second.facts) == ("input", False, {"same_as": "a/out"})
    assert (first.kind, first.headline, first.facts) == ("activation", True, {"note": 1})


def test_hashes_are_those_of_the_files(tmp_path):
    with StoreWriter(tmp_path, "s") as writer:
        for number in range(20):
            writer.add(f"{number}", np.arange(number, dtype=np.float32), "output")
    assert set(writer.hashes) == set(store_files("s")) == {path.name for path in tmp_path.iterdir()}
    for name, told in writer.hashes.items():
        assert told == blake3((tmp_path / name).read_bytes()).hexdigest()


def test_an_empty_store_is_one(tmp_path):
    assert len(write(tmp_path, {})) == 0
    assert write(tmp_path, {"x": np.empty((0, 3))})["x"].shape == (0, 3)


class TestStalledDisk:
    """A pipe that nobody reads stands for a disk that stalls."""

    PLUG = np.ones(MEBIBYTE, np.uint8)

    @pytest.fixture
    def stalled(self, tmp_path):
        """A writer in the middle of a tensor that does not get on, and what lets it: that answers how much came."""
        os.mkfifo(tmp_path / "s.tensors")
        reader = os.open(tmp_path / "s.tensors", os.O_RDONLY | os.O_NONBLOCK)
        writer = StoreWriter(tmp_path, "s", ahead=MEBIBYTE)
        writer.add("plug", self.PLUG, "output")
        select.select([reader], [], [])

        def resume():
            os.set_blocking(reader, True)
            return sum(map(len, iter(lambda: os.read(reader, 1 << 20), b"")))

        yield writer, resume
        os.close(reader)

    @staticmethod
    def in_thread(target):
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        return thread

    @pytest.mark.parametrize("size", [1 << 14, 1 << 18])
    def test_a_caller_far_ahead_waits(self, stalled, size):
        """Memory must not fill with what waits to be written, be it many tensors or large ones."""
        writer, resume = stalled
        arrays = np.random.default_rng(0).integers(0, 256, (200, size), np.uint8)
        added = []

        def fill():
            for number, array in enumerate(arrays):
                writer.add(f"{number}", array, "output")
                added.append(number)
            writer.close()

        thread = self.in_thread(fill)
        waiting = len(added)
        received = resume()
        thread.join(60)
        assert waiting <= MEBIBYTE / size
        assert (len(added), received) == (200, self.PLUG.nbytes + arrays.nbytes)

    def test_leaving_by_an_exception_drops_what_waits(self, stalled):
        writer, resume = stalled

        def fail():
            with suppress(ZeroDivisionError), writer:
                writer.add("x", np.arange(1000), "output")
                raise ZeroDivisionError

        thread = self.in_thread(fail)
        assert resume() == self.PLUG.nbytes
        thread.join(60)
        assert not thread.is_alive()


class TestFullDisk:
    """/dev/full answers every write with "no space left", as a full disk does, but only once a buffer is flushed."""

    @pytest.fixture
    def full(self, tmp_path):
        os.symlink("/dev/full", tmp_path / "s.tensors")
        return tmp_path

    def test_whoever_adds_next_is_told(self, full):
        writer = StoreWriter(full, "s")

        def add():
            for number in range(10_000):
                writer.add(f"{number}", np.zeros(1 << 14), "output")

        with pytest.raises(OSError, match="No space left") as caught:
            add()
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space left"):
            writer.close()
        assert not (full / "s.index.jsonl").exists()

    def test_whoever_closes_is_told(self, full):
        with pytest.raises(OSError, match="No space left"), StoreWriter(full, "s") as writer:
            writer.add("x", np.zeros(4), "output")
        assert not (full / "s.index.jsonl").exists()

    def test_it_does_not_hide_what_went_wrong_before(self, full):
        def record():
            with StoreWriter(full, "s") as writer:
                writer.add("x", np.zeros(4), "output")
                raise RuntimeError("the model raised")

        with pytest.raises(RuntimeError, match="the model raised"):
            record()

    def test_no_thread_is_left(self, full):
        before = threading.active_count()
        with pytest.raises(OSError, match="No space left"), StoreWriter(full, "s") as writer:
            writer.add("x", np.zeros(4), "output")
        assert threading.active_count() == before


@pytest.fixture
def lying(tmp_path):
    """Open a store of ten float32 after its one index entry, or its text, was changed; the answer is the error."""

    def opened(change=None, *, text=None, truncate=None):
        write(tmp_path, {"x": np.arange(10, dtype=np.float32)})
        data, index = (tmp_path / name for name in store_files("step"))
        if change is not None:
            index.write_text(json.dumps({**json.loads(index.read_text()), **change}) + "\n")
        if text is not None:
            index.write_bytes(text)
        if truncate is not None:
            os.truncate(data, truncate)
        tracemalloc.start()
        try:
            with pytest.raises(UsageError) as caught:
                Store(tmp_path, "step")["x"]
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 4 << 20
        return str(caught.value)

    return opened


HUGE = 1 << 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": -64}, "negative or fractional"),
        ({"nbytes": -40}, "negative or fractional"),
        ({"shape": [-10]}, "negative or fractional"),
        ({"shape": [-1, -10]}, "negative or fractional"),
        ({"shape": [10.0]}, "negative or fractional"),
        ({"shape": [True] * 10}, "negative or fractional"),
        ({"shape": ["10"]}, "negative or fractional"),
        ({"shape": [[10]]}, "negative or fractional"),
        ({"shape": [None]}, "negative or fractional"),
        ({"offset": 64}, "does not fit its file"),
        ({"shape": [11]}, "does not fit its file"),
        ({"shape": [9]}, "does not fit its file"),
        ({"shape": [HUGE], "nbytes": 4 * HUGE}, "does not fit its file"),
        ({"shape": [HUGE, HUGE], "nbytes": 40}, "shape that no array can have"),
        ({"shape": [0, 1 << 62], "nbytes": 0}, "shape that no array can have"),
        ({"shape": [0, HUGE, HUGE], "nbytes": 0}, "shape that no array can have"),
        ({"shape": [1 << 70]}, "shape or place"),
        ({"shape": [1] * 65, "nbytes": 4}, "shape or place"),
        ({"offset": 1 << 70}, "shape or place"),
        ({"shape": [], "nbytes": 40}, "does not fit its file"),
        ({"dtype": "float64"}, "does not fit its file"),
        ({"dtype": "object"}, "unknown dtype 'object'"),
        ({"dtype": "O"}, "unknown dtype 'O'"),
        ({"dtype": "U4"}, "unknown dtype"),
        ({"dtype": ">f4"}, "unknown dtype '>f4'"),
        ({"dtype": "f4,f4"}, "unknown dtype"),
        ({"dtype": "(1000000,1000000)f4"}, "unknown dtype"),
        ({"dtype": None}, "unknown dtype None"),
        ({"dtype": {"names": ["a"], "formats": ["f4"]}}, "unknown dtype"),
        ({"dtype": "float31"}, "unknown dtype 'float31'"),
        ({"kind": "outputs"}, "unknown kind 'outputs'"),
        ({"kind": ["output"]}, "unknown kind"),
        ({"name": 7}, "fields of the wrong type"),
        ({"name": ["x"]}, "fields of the wrong type"),
        ({"facts": 7}, "fields of the wrong type"),
        ({"facts": {"same_as": ["x"]}}, "another tensor's"),
        ({"headline": "yes"}, "fields of the wrong type"),
        ({"stored": 1}, "fields of the wrong type"),
        ({"shape": None}, "not a recording's index"),
        ({"shape": 10}, "not a recording's index"),
        ({"path": "../../secret"}, "not a recording's index"),
        ({"stored": False}, "kept as a summary only"),
    ],
)
def test_an_index_that_lies_is_one_clear_error(lying, tmp_path, change, message):
    told = lying(change)
    assert message in told
    assert str(tmp_path) in told


@pytest.mark.parametrize(
    "text",
    [
        b"{}\n",
        b"[]\n",
        b"7\n",
        b'"text"\n',
        b"null\n",
        b"{\n",
        b"\xff\xfe\n",
        b"\0" * 100,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"shape": ' + b"9" * 5000 + b"}\n",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_what_is_no_index_is_one_clear_error(lying, text):
    assert "step.index.jsonl: not a recording's index" in lying(text=text)


def test_a_name_twice_is_an_error(lying, tmp_path):
    write(tmp_path, {"x": np.arange(10, dtype=np.float32)})
    line = (tmp_path / "step.index.jsonl").read_bytes()
    assert "'x' comes twice" in lying(text=line + line)


@pytest.mark.parametrize("size", [0, 1, 39])
def test_truncated_bytes_are_an_error(lying, size):
    assert "does not fit its file (40 bytes at 0 of" in lying(truncate=size)


@pytest.mark.parametrize("missing", store_files("step"))
def test_a_missing_file_is_named(tmp_path, missing):
    write(tmp_path, {"x": np.ones(1)})
    (tmp_path / missing).unlink()
    with pytest.raises(UsageError, match=missing):
        Store(tmp_path, "step")


def test_no_name_leads_out_of_the_folder(tmp_path):
    """A name is a key, not a path: nothing is looked up by it."""
    (tmp_path / "inner").mkdir()
    store = write(tmp_path / "inner", {"../../escape": np.ones(1), "/etc/passwd": np.zeros(1)})
    assert store["../../escape"].tolist() == [1.0]
    assert {path.name for path in tmp_path.rglob("*")} == {"inner", *store_files("step")}


class TestThin:
    @pytest.fixture
    def store(self, tmp_path):
        (tmp_path / "full").mkdir()
        (tmp_path / "thin").mkdir()
        with StoreWriter(tmp_path / "full", "s") as writer:
            writer.add("a", np.array([[1.0, -3.0], [np.nan, np.inf]]), "output", headline=True, facts={"note": 1})
            writer.add("b", np.arange(5000, dtype=np.float32), "activation")
            writer.alias("c", "b", "input")
            writer.add("d", np.array([0x3F80, 0x4000], np.uint16), "gradient", bfloat16=True)
            writer.add("e", np.empty((0, 2)), "gradient")
            writer.add("f", np.array([True, False]), "metric")
            writer.add("g", np.array([3 + 4j]), "output")
        return Store(tmp_path / "full", "s")

    def test_what_is_kept_is_whole_and_the_rest_is_described(self, store, tmp_path):
        hashes = thin(store, tmp_path / "thin", {"b", "d"})
        thinned = Store(tmp_path / "thin", "s")
        assert list(thinned) == list(store)
        same(thinned["b"], store["b"])
        assert thinned.raw("d").tolist() == store.raw("d").tolist()
        same(thinned["c"], store["b"])  # under its second name, too
        for name in ("a", "e", "f", "g"):
            with pytest.raises(UsageError, match=f"{name} was kept as a summary only"):
                thinned[name]
            old, new = store.entries[name], thinned.entries[name]
            told = (new.kind, new.dtype, new.shape, new.headline)
            assert told == (old.kind, old.dtype, old.shape, old.headline)
        assert thinned.entries["c"].facts["same_as"] == "b"
        for name, told in hashes.items():
            assert told == blake3((tmp_path / "thin" / name).read_bytes()).hexdigest()
        thin(store, tmp_path / "thin", {"c"})
        same(Store(tmp_path / "thin", "s")["c"], store["b"])

    def test_a_summary_is_of_the_finite_elements(self, store, tmp_path):
        thin(store, tmp_path / "thin", ())
        entries = Store(tmp_path / "thin", "s").entries
        assert (tmp_path / "thin/s.tensors").stat().st_size == 0
        told = entries["a"].facts["summary"]
        assert told == {"size": 4, "finite": 2, "mean": -1.0, "rms": pytest.approx(5**0.5), "min": -3.0, "max": 1.0}
        assert entries["a"].facts["note"] == 1
        assert entries["d"].facts["summary"]["mean"] == 1.5
        assert entries["e"].facts["summary"] == {"size": 0, "finite": 0}
        assert entries["f"].facts["summary"]["mean"] == 0.5
        assert entries["g"].facts["summary"]["rms"] == 5.0
